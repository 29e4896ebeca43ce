//! Priming beside a build on one machine: what it costs where the build keeps all processors busy, and what it gains
//! where it does not.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::DEP_H;
use super::world::{World, figure_at_least};

/// Elements of a shape, and compiles of each.
const ELEMENTS: usize = 4;
const COMPILES: usize = 4;
/// So many functions take a compiler about half a second.
const FUNCTIONS: usize = 40;

/// How elements depend on each other, and how many compiles of one run at a time.
struct Shape {
    name: &'static str,
    /// Each element builds on the one before.
    chain: bool,
    jobs: usize,
}

/// One processor is idle; both are busy; elements wait for each other, and both are busy.
const SHAPES: [Shape; 3] = [
    Shape { name: "serial", chain: true, jobs: 1 },
    Shape { name: "wide", chain: false, jobs: 2 },
    Shape { name: "layers", chain: true, jobs: 2 },
];

/// Ways to rebuild: `bst` alone, or ours with these options.
const WAYS: [(&str, Option<&[&str]>); 3] =
    [("bst", None), ("default", Some(&[])), ("--jobs 1", Some(&["--jobs", "1"]))];

/// How often each shape is rebuilt in each way.
const ROUNDS: usize = 5;

pub(crate) fn run(world: &World) {
    world.archive_base();
    let mut answer = 42;
    println!("{:<8} {:<15} {:>9} {:>7} {:>7} {:>7}", "shape", "way", "median s", "ratio", "primed", "wasted");
    for shape in &SHAPES {
        let top = shape.add_to(world);
        world.build(&top, &[]);
        let mut times = vec![Vec::with_capacity(ROUNDS); WAYS.len()];
        let (mut primed, mut wasted) = (vec![0; WAYS.len()], vec![0; WAYS.len()]);
        for _ in 0..ROUNDS {
            for (way, (_, options)) in WAYS.iter().enumerate() {
                let next = answer + 1;
                world.edit(DEP_H, &answer.to_string(), &next.to_string());
                answer = next;
                let start = Instant::now();
                match options {
                    None => world.must_bst(&["build", &top]),
                    Some(options) => {
                        let running = world.start_build_with(&top, options, &[]);
                        let build = world.finish_build(running);
                        primed[way] += count(&build.json["totals"]["primed_hits"]);
                        wasted[way] += count(&build.json["totals"]["wasted"]);
                    }
                }
                times[way].push(start.elapsed());
            }
        }
        let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
        for (way, (name, _)) in WAYS.iter().enumerate() {
            let (seconds, ratio) = (medians[way], medians[way] / medians[0]);
            let (primed, wasted) = (primed[way] / ROUNDS, wasted[way] / ROUNDS);
            println!("{:<8} {name:<15} {seconds:>9.2} {ratio:>7.2} {primed:>7} {wasted:>7}", shape.name);
        }
        if shape.chain {
            // Nothing is gained where nothing is found.
            figure_at_least(
                &format!("{}: primed, of {}", shape.name, ELEMENTS * COMPILES),
                1.0,
                primed[1] as f64 / ROUNDS as f64,
            );
        }
        // A machine that is busy otherwise shows little; what it shows is printed.
        figure_at_least(&format!("{}: bst build / bst-sa build", shape.name), 0.0, medians[0] / medians[1]);
    }
}

fn count(value: &serde_json::Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

impl Shape {
    /// Adds the elements to the project. Returns the one that needs all of them.
    fn add_to(&self, world: &World) -> String {
        let name = |turn: usize| format!("{}-{turn}", self.name);
        for turn in 0..ELEMENTS {
            let folder = format!("files/{}", name(turn));
            std::fs::create_dir_all(world.path("project").join(&folder)).unwrap();
            for file in 0..COMPILES {
                world.add(&format!("{folder}/unit{file}.c"), &source(turn * COMPILES + file));
            }
            let below = if self.chain && turn > 0 { format!("- {}.bst\n", name(turn - 1)) } else { String::new() };
            world.add(&format!("elements/{}.bst", name(turn)), &self.element(&folder, &below));
        }
        let top = format!("{}.bst", self.name);
        let all: String = (0..ELEMENTS).map(|turn| format!("- {}.bst\n", name(turn))).collect();
        world.add(&format!("elements/{top}"), &format!("kind: stack\ndepends:\n{all}"));
        top
    }

    fn element(&self, folder: &str, below: &str) -> String {
        let jobs = self.jobs;
        format!(
            "kind: manual
build-depends:
- filename: base.bst
  config:
    digest-environment: RECC_REMOTE_PLATFORM_chrootRootDigest
- dep.bst
{below}sources:
- kind: local
  path: {folder}
sandbox:
  remote-apis-socket:
    path: /tmp/casd.sock
environment:
  RECC_SERVER: unix:/tmp/casd.sock
  RECC_LOG_LEVEL: info
  RECC_LOG_DIRECTORY: \"%{{build-root}}/.recc-log\"
  RECC_DEPS_GLOBAL_PATHS: 1
  RECC_NO_PATH_REWRITE: 1
config:
  build-commands:
  - ls *.c | xargs -n 1 -P {jobs} recc gcc -O2 -c
  install-commands:
  - install -D -t \"%{{install-root}}/usr/lib/{folder}\" *.o
"
        )
    }
}

/// Something that keeps a compiler busy.
fn source(seed: usize) -> String {
    let mut text = "#include \"dep.h\"\n".to_owned();
    for turn in 0..FUNCTIONS {
        let (shift, mask) = (turn % 13 + 1, turn + 1);
        writeln!(
            text,
            "unsigned f{seed}_{turn}(unsigned *a, unsigned n) {{
    unsigned s = ANSWER + {turn};
    for (unsigned i = 0; i < n; i++) {{
        s = s * 31 + a[i];
        a[i] ^= s >> {shift};
        if (s & {mask}) s += a[n - 1 - i];
    }}
    switch (s % 7) {{ case 0: return s / 3; case 1: return s * {mask}; case 2: s ^= n; break; default: s -= a[0]; }}
    return s;
}}"
        )
        .unwrap();
    }
    text
}
