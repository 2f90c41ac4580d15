"""Studies: measurements of single methods. Each script writes one page of ``studies/results``; see ``README.md``.

Studies are not part of the installed package, and no code of the package imports them.
"""
