"""Prompts of the style task, by kind of text. None of them is written in the style of a corpus."""

from __future__ import annotations

PROMPTS = {
    "narrative": [
        "The rider came down from the hills at dusk, and the first thing he saw was",
        "Nobody in the village had opened the old mill since the flood, until the morning when",
        "My grandfather kept a sword above the fireplace, and one winter night he told us how",
        "The inn was full, so the two travellers were shown to the stable, where",
        "Three days after the fair, the blacksmith found a letter under his door. It said",
        "The captain ordered the sails lowered, for on the horizon there was",
        "Once the last guest had gone, the widow took out the map and",
        "When the bell rang at midnight, the two brothers were still",
        "A traveller who had lost his way knocked at the gate, and",
        "The old soldier never spoke of the war, except on the day when",
    ],
    "dialogue": [
        '"You have read too many books," said the barber. The old man answered, "',
        '"Tell me truly, friend, what did you see on the road?" "I saw',
        '"We cannot pay you," the miller said. His guest laughed and replied, "',
        '"Is it a castle or an inn?" asked the boy. "It is',
        '"Where did you leave the donkey?" "I left it',
        '"I swear by my sword," cried the young man, "that',
        '"Do you believe in giants?" she asked. He thought for a while and said, "',
        '"Give me the key," said the priest. "I cannot," she answered, "because',
        '"Who goes there?" shouted the guard. A voice out of the dark replied, "',
        '"My lord, the horses are tired." "Then let them',
    ],
    "expository": [
        "Windmills were built on the plains for a simple reason:",
        "In the sixteenth century most people learned the news from",
        "A good horse costs more than its price, because",
        "The difference between courage and recklessness is that",
        "People have told stories about knights for centuries, since",
        "The olive tree grows slowly, and for that reason",
        "Bread was the most important food of the poor, who",
        "A proverb is a short sentence that",
        "Long journeys were dangerous before there were roads, because",
        "The duty of a good host is to",
    ],
    "technical": [
        "To sort a list of numbers in place, the algorithm first",
        "The pump must be primed before it is started, otherwise",
        "A hash table stores each key in a bucket, so that",
        "Before measuring the voltage, set the instrument to",
        "A lever makes it possible to lift a heavy weight, since",
        "To find the greatest common divisor of two numbers, divide",
        "The boiler must never be filled while it is hot, as",
        "A compiler reads the source code and",
        "To sharpen a blade, hold it at an angle of",
        "Water flows through the filter in two stages: first",
    ],
}
