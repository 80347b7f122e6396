#!/usr/bin/env python3
"""Checks the tree of dependencies against .deny.toml: licences, bans, and crates of which there may be one version only.

It stands in for cargo-deny, which takes longer to build than everything else here. It knows no advisories.
"""

import re
import subprocess
import sys
import tomllib

from demo import TOP, Tally


def main():
    tally = Tally("dependencies")
    rules = tomllib.loads((TOP / ".deny.toml").read_text())
    packages = graph(rules["graph"]["targets"])
    allowed = set(rules["licenses"]["allow"])
    unknown = [f"{p['name']} {p['version']}: {p['license']}" for p in packages if not permitted(p["license"], allowed)]
    tally.check(not unknown, f"licences of {len(packages)} packages are among those allowed", "; ".join(unknown))
    for rule in rules["bans"]["deny"]:
        versions = sorted(p["version"] for p in packages if p["name"] == rule["name"])
        if rule.get("deny-multiple-versions"):
            tally.check(len(versions) <= 1, f"one {rule['name']}", " ".join(versions))
        else:
            tally.check(not versions, f"no {rule['name']}", " ".join(versions))
    elsewhere = [p["name"] for p in packages if "://" in p["place"]]
    tally.check(not elsewhere, "all come from the registry or from here", " ".join(elsewhere))
    return tally.close()


def graph(targets):
    """What is built for these targets: `cargo metadata` would also name what is only locked."""
    found = {}
    for target in targets:
        command = ["cargo", "tree", "--locked", "--workspace", "--edges", "all", "--target", target, "--prefix", "none",
                   "--format", "{p}\t{l}"]
        done = subprocess.run(command, cwd=TOP, check=True, stdout=subprocess.PIPE, text=True)
        for line in done.stdout.splitlines():
            package, tab, licence = line.partition("\t")
            if not tab:
                continue  # a heading: [build-dependencies]
            name, version, *place = package.split()
            licence = licence.removesuffix(" (*)")
            found[name, version] = {"name": name, "version": version, "license": licence, "place": " ".join(place)}
    return list(found.values())


def permitted(expression, allowed):
    """Whether an SPDX expression can be met with the licences that are allowed. "/" is an old way to write OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", (expression or "none").replace("/", " OR "))

    def either():
        good = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            good = both() or good
        return good

    def both():
        good = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            good = one() and good
        return good

    def one():
        token = tokens.pop(0)
        if token == "(":
            good = either()
            tokens.pop(0)
            return good
        if tokens and tokens[0] == "WITH":
            tokens.pop(0)
            token = f"{token} WITH {tokens.pop(0)}"
        return token in allowed

    return either()


if __name__ == "__main__":
    sys.exit(main())
