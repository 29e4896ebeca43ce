#!/usr/bin/env bash
# What a person would do with the sample project, by hand: show, build, check
# out, verify contents, change a header, build again, report. Works on a copy,
# with a cache of its own; what is here stays as it is.
#
# Needs `bst` and `bst-sa` in the search path; `cargo xtask project` puts in
# place what the project lacks and says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf '\n=== %s\n' "$*"; }
fail() {
    echo "verify.sh: $*" >&2
    exit 1
}

for program in bst bst-sa python3; do
    command -v "$program" >/dev/null || fail "$program is not in the search path; run \`cargo xtask project\`, which says how to get it there"
done
[[ -e files/root/usr/bin/gcc ]] || fail "files/root is missing; run \`cargo xtask project\`"

# Beside the project, so that large files can be linked and need not be copied.
here="$PWD"
home="$(mktemp -d "$here/.verify-XXXXXX")"
trap 'rm -rf "$home"' EXIT
mkdir "$home/project" "$home/project/files"
cp -a project.conf elements "$home/project"
for folder in files/*; do
    case "$folder" in
    files/root | files/busybox | files/tool) cp -al "$folder" "$home/project/files" ;;
    *) cp -a "$folder" "$home/project/files" ;;
    esac
done
cat >"$home/bst.conf" <<CONF
cachedir: $home/cache
logdir: $home/logs
sourcedir: $home/sources
cache: {cache-buildtrees: always}
CONF
cd "$home/project"

run_bst() { bst --config "$home/bst.conf" --no-interactive "$@" 2>>"$home/bst.log"; }
build() { bst-sa build --head-start 60 --config "$home/bst.conf" "$@" -- --no-interactive 2>>"$home/bst.log"; }

# One number of the last report.
number() { # ELEMENT MEMBER
    python3 - "$home/report.json" "$1" "$2" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
print(next((e[sys.argv[3]] for e in report["elements"] if e["name"] == sys.argv[2]), 0))
PY
}
expect() { # WHAT EXPECTED FOUND
    [[ "$2" == "$3" ]] || {
        tail -n 40 "$home/bst.log" >&2
        fail "$1: expected $2, found $3"
    }
    printf '%-52s %s\n' "$1" "$3"
}
answer() {
    rm -rf "$home/checkout"
    run_bst artifact checkout --deps none --directory "$home/checkout" app.bst
    # The program was linked for the sandbox: its loader and libraries run it.
    files/root/usr/lib64/ld-linux-x86-64.so.2 --library-path files/root/usr/lib/x86_64-linux-gnu \
        "$home/checkout/usr/bin/app"
}

say "show"
run_bst show --deps all --format '%{state}  %{name}' app.bst

say "build app.bst for the first time"
build --json app.bst >"$home/report.json"
expect "compiles and links that ran" 3 "$(number app.bst executed)"
expect "what the program says" "the answer is 42, twice is 84" "$(answer)"
bst-sa show --config "$home/bst.conf" app.bst 2>>"$home/bst.log"

say "change dep.h and build again"
sed -i 's/42/43/' files/dep/usr/include/dep.h
build --json app.bst >"$home/report.json"
expect "compiles and links that ran during the build" 0 "$(number app.bst executed)"
expect "found because they had run ahead of it" 2 "$(number app.bst primed_hits)"
expect "found anyway" 1 "$(number app.bst direct_hits)"
expect "what the program says" "the answer is 43, twice is 86" "$(answer)"

say "a chain of elements"
build top.bst >/dev/null
rm -rf "$home/checkout"
run_bst artifact checkout --deps none --directory "$home/checkout" top.bst
expect "what three elements wrote" "base middle top" "$(xargs <"$home/checkout/chain/story-of-three")"

say "report of the last rebuild of app.bst"
python3 -m json.tool "$home/report.json"
say "everything is as it should be"
