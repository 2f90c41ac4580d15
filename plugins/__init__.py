"""The built-in plugins: Specs of logitkit's own processors and tasks, offered through the same hooks as others."""
