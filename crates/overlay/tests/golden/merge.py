"""Writes merge.jsonl: what BuildStream itself makes of trees staged on top of each other.

Run with the Python that has BuildStream: `python merge.py > merge.jsonl`. Its
CasBasedDirectory is used as it is, over a store of a few lines instead of casd.

A tree is an object: a name stands for a tree, a symlink's target, or a file as
[content, executable, mtime, unix mode], the last two of which may be null. The
name "/" is the property SubtreeReadOnly of the directory itself.
"""

import hashlib
import json
import os
import random
import tempfile

from buildstream._protos.build.bazel.remote.execution.v2 import remote_execution_pb2
from buildstream.storage._casbaseddirectory import CasBasedDirectory
from buildstream.storage.directory import DirectoryError


class Store:
    def __init__(self, folder):
        self.folder = folder

    def objpath(self, digest):
        return os.path.join(self.folder, digest.hash)

    def add_object(self, *, buffer):
        digest = remote_execution_pb2.Digest(hash=hashlib.sha256(buffer).hexdigest(), size_bytes=len(buffer))
        with open(self.objpath(digest), "wb") as f:
            f.write(buffer)
        return digest


def store_tree(store, tree):
    directory = remote_execution_pb2.Directory()
    for name, value in sorted(tree.items()):
        if name == "/":
            directory.node_properties.properties.add(name="SubtreeReadOnly", value=value)
        elif isinstance(value, dict):
            directory.directories.add(name=name).digest.CopyFrom(store_tree(store, value))
        elif isinstance(value, str):
            directory.symlinks.add(name=name, target=value)
        else:
            content, executable, mtime, mode = value
            node = directory.files.add(name=name, is_executable=executable)
            node.digest.CopyFrom(store.add_object(buffer=content.encode()))
            if mtime is not None:
                node.node_properties.mtime.seconds = mtime
            if mode is not None:
                node.node_properties.unix_mode.value = mode
    return store.add_object(buffer=directory.SerializeToString())


def merge(trees):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        staged = CasBasedDirectory(store)
        unstaged = []
        for i, tree in enumerate(trees):
            source = CasBasedDirectory(store, digest=store_tree(store, tree))
            try:
                result = staged._import_files_internal(source)
            except DirectoryError as error:
                return {"error": str(error)}
            unstaged += [[path, i] for path in result.ignored]
        digest = staged._get_digest()
        return {"root": "{}/{}".format(digest.hash, digest.size_bytes), "unstaged": sorted(unstaged)}


def f(content, executable=False, mtime=None, mode=None):
    return [content, executable, mtime, mode]


CASES = [
    ("nothing", []),
    ("one empty tree", [{}]),
    ("disjoint", [{"a": f("1")}, {"b": {"c": f("2")}}]),
    ("file over file", [{"a": f("1")}, {"a": f("2")}]),
    ("the same file", [{"d": {"a": f("1"), "b": f("2")}}, {"d": {"a": f("1")}}]),
    ("executable over plain", [{"a": f("1")}, {"a": f("1", True)}]),
    ("plain over executable", [{"a": f("1", True)}, {"a": f("1")}]),
    ("file over symlink", [{"a": "b", "b": f("1")}, {"a": f("2")}]),
    ("symlink over file", [{"a": f("1")}, {"a": "b"}]),
    ("symlink over symlink", [{"a": "b"}, {"a": "c"}]),
    ("file over empty directory", [{"a": {}}, {"a": f("1")}]),
    ("symlink over empty directory", [{"a": {}}, {"a": "b"}]),
    ("file over directory", [{"a": {"b": f("1")}}, {"a": f("2"), "c": f("3")}]),
    ("symlink over directory", [{"lib": {"x": f("1")}}, {"lib": "usr/lib", "usr": {"lib": {"y": f("2")}}}]),
    ("file over a directory of empty directories", [{"a": {"b": {}}}, {"a": f("1")}]),
    ("directory over file", [{"a": f("1")}, {"a": {"b": f("2")}}]),
    ("empty directory over file", [{"a": f("1")}, {"a": {}}]),
    ("directory over symlink to it", [{"lib": "usr/lib", "usr": {"lib": {}}}, {"lib": {"x": f("1")}}]),
    ("empty directory over symlink", [{"lib": "usr/lib", "usr": {"lib": {}}}, {"lib": {}}]),
    ("directory over what replaced an empty one", [{"a": {}}, {"a": f("1")}, {"a": {"b": f("2")}}]),
    ("file over a directory filled later", [{"a": {}}, {"a": {"b": f("2")}}, {"a": f("1")}]),
    ("empty directories", [{"a": {}, "b": {"c": {}}}, {"a": {}, "b": {"d": {}}}]),
    ("empty over full", [{"a": {"b": f("1")}}, {"a": {}}]),
    ("full over empty", [{"a": {}}, {"a": {"b": f("1")}}]),
    ("the first again", [{"a": {"b": f("1")}}, {"a": {"b": f("2"), "c": f("3")}}, {"a": {"b": f("1")}}]),
    ("equal directories at different paths", [{"a": {"x": f("1")}, "b": {"x": f("1")}}, {"a": {"y": f("2")}, "b": {"y": f("2")}}]),
    ("times are kept", [{"d": {"a": f("1", False, 5), "b": f("2", True, 6)}}, {"d": {"b": f("2", True, 7), "c": f("3")}}]),
    ("modes are lost where something is added", [{"d": {"a": f("1", False, 5, 0o644)}, "e": {"a": f("1", False, None, 0o600)}}, {"d": {"c": f("3", False, None, 0o640)}, "f": {"x": f("4", False, None, 0o644)}}]),
    ("modes stay where all is skipped", [{"d": {"a": {"b": f("1")}, "c": f("1", False, None, 0o600)}}, {"d": {"a": f("2")}, "e": f("3")}]),
    ("the earliest says what is read-only", [{"d": {"/": "true", "a": f("1")}, "e": {"a": f("1")}, "g": {"/": "other", "a": f("1")}}, {"d": {"/": "false", "b": f("2")}, "e": {"/": "true", "b": f("2")}, "g": {"b": f("1")}}]),
    ("file over read-only empty directory", [{"d": {"/": "true"}}, {"d": f("1")}]),
    ("order of names", [{"d": {"b": f("1"), "a.": f("1"), "a": {}}}, {"d": {"a-": f("1"), "é": "x", "Z": "y", "0": {}}}]),
]


def random_tree(rng, depth):
    tree = {}
    for name in rng.sample("abcd", rng.randrange(4 if depth else 5)):
        kind = rng.random()
        if depth < 3 and kind < 0.55:
            tree[name] = random_tree(rng, depth + 1)
        elif kind < 0.9:
            tree[name] = f(rng.choice("12"), rng.random() < 0.2)
        else:
            tree[name] = rng.choice("ab")
    return tree


def main():
    rng = random.Random(1)
    cases = list(CASES)
    failing = 0
    while len(cases) < 160:
        trees = [random_tree(rng, 0) for _ in range(rng.randrange(2, 5))]
        failing += "error" in merge(trees)
        if "error" not in merge(trees) or failing % 6 == 0:
            cases.append(("random {}".format(len(cases) - len(CASES)), trees))
    for name, trees in cases:
        print(json.dumps({"name": name, "trees": trees, **merge(trees)}, separators=(",", ":"), ensure_ascii=False))


main()
