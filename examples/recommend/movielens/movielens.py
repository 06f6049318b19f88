#!/usr/bin/env python3
"""Measures the recommender on MovieLens 100k, each rating tested before it is learned.

    movielens.py prepare RATINGS    writes ratings.jsonl: the ratings of 5, in order of time
    movielens.py evaluate           reads recommended.jsonl, which the pipeline has written:
                                    prints its recall@10, and compares each row with a
                                    computation of its own

RATINGS is `u.data`, or a copy of it with a header (`ml-100k.inter`), from
https://grouplens.org/datasets/movielens/100k/ (research use; it may not be passed on).
"""

import json
import sys
from datetime import datetime, timezone
from math import sqrt
from pathlib import Path

FOLDER = Path(__file__).parent
RATINGS = FOLDER / "ratings.jsonl"
RECOMMENDED = FOLDER / "recommended.jsonl"

# As in pipeline.toml.
COUNT = 10
PROFILE_ITEMS = 20
NEIGHBOURS = 200
POPULAR_ITEMS = 200
LEARNING_DECAY = 0.9
ASKING_DECAY = 0.85
# The first part is only learned.
LEARNED = 0.3


def prepare(path):
    ratings = []
    for line in open(path, encoding="utf-8"):
        user, item, rating, time = line.split("\t")[:4]
        if rating.replace(".", "").isdigit() and float(rating) == 5:
            ratings.append((int(float(time)) * 1000, user, item))
    ratings.sort()
    with RATINGS.open("w", encoding="utf-8") as out:
        for time, user, item in ratings:
            row = {"user_id": user, "item_id": item, "action": "rate", "ts": time}
            print(json.dumps(row), file=out)
    print(f"{len(ratings)} ratings of 5")


class Model:
    """The neighbours of an item: name -> [weight, popularity]; dicts keep their order."""

    def __init__(self):
        self.popularity = 0.0
        self.neighbours = {}

    def add(self, item, weight, popularity):
        known = self.neighbours.get(item)
        if known:
            known[0] += weight
            known[1] = max(known[1], popularity)
        else:
            self.insert(item, weight, popularity, NEIGHBOURS)

    def insert(self, item, weight, popularity, most):
        if len(self.neighbours) == most:
            # The weakest one gives its place in the list to the new one.
            names = list(self.neighbours)
            least = min(weight for weight, _ in self.neighbours.values())
            at = max(n for n, name in enumerate(names) if self.neighbours[name][0] == least)
            entries = list(self.neighbours.items())
            entries[at] = (item, [weight, popularity])
            self.neighbours = dict(entries)
        else:
            self.neighbours[item] = [weight, popularity]


def best(scores, count):
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))[:count]


def recommendations(rows):
    """For each row, what is recommended before it is learned: items with scores."""
    counts, profiles, models, popular = {}, {}, {}, Model()
    for user, item in rows:
        profile = profiles.setdefault(user, [])
        own = {other for other, _ in profile}
        scores, weight = {}, 1.0
        for other, _ in profile[: -PROFILE_ITEMS - 1 : -1]:
            model = models[other]
            for name, (together, popularity) in model.neighbours.items():
                if name not in own:
                    score = together / (sqrt(model.popularity) * sqrt(sqrt(popularity)))
                    scores[name] = scores.get(name, 0.0) + weight * score
            weight *= ASKING_DECAY
        found = best(scores, COUNT)
        names = own | {name for name, _ in found}
        rest = {name: w for name, (w, _) in popular.neighbours.items() if name not in names}
        yield found + best(rest, COUNT - len(found))

        counts[item] = counts.get(item, 0.0) + 1.0
        mine = models.setdefault(item, Model())
        mine.popularity = counts[item]
        weight = 1.0
        for other, popularity in profile[: -PROFILE_ITEMS - 1 : -1]:
            models[other].add(item, weight, counts[item])
            mine.add(other, weight, popularity)
            weight *= LEARNING_DECAY
        if item in popular.neighbours:
            popular.neighbours[item] = [counts[item], counts[item]]
        else:
            popular.insert(item, counts[item], counts[item], POPULAR_ITEMS)
        profile.append((item, counts[item]))


def evaluate():
    rows = [json.loads(line) for line in RATINGS.open(encoding="utf-8")]
    rows = sorted((row["ts"], row["user_id"], row["item_id"]) for row in rows)
    answers = {}
    for line in RECOMMENDED.open(encoding="utf-8"):
        answer = json.loads(line)
        found = [(one["item"], one["score"]) for one in answer["recommended"]]
        answers[answer["time"], answer["user"], answer["request"]] = found
    tested = hits = differing = 0
    learned = int(len(rows) * LEARNED)
    expected = recommendations((user, item) for _, user, item in rows)
    for n, ((time, user, item), expected) in enumerate(zip(rows, expected)):
        time = datetime.fromtimestamp(time / 1000, timezone.utc)
        found = answers.pop((f"{time:%Y-%m-%dT%H:%M:%S}Z", user, item), None)
        differing += found != expected
        if n >= learned:
            tested += 1
            hits += any(item == name for name, _ in found or ())
    print(f"recall@{COUNT} {hits / tested:.4f} of {tested}; {differing} rows differ")
    sys.exit(1 if differing or answers else 0)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare", path]:
            prepare(path)
        case ["evaluate"]:
            evaluate()
        case _:
            sys.exit(__doc__)
