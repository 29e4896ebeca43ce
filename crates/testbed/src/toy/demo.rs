//! The demonstration project: two libraries and a program, 13 C files.

use std::collections::BTreeMap;

use super::{Element, Error, Product, Project, Toolchain};

macro_rules! sources {
    ($element:literal: $($path:literal)*) => {
        [$(($path, include_str!(concat!("demo/", $element, "/", $path)))),*]
    };
}

const LIBA: [(&str, &str); 10] = sources!("liba":
    "include/liba/checksum.h" "include/liba/config.h" "include/liba/export.h" "include/liba/random.h"
    "include/liba/vector.h" "src/checksum.c" "src/internal.h" "src/random.c" "src/sort.c" "src/vector.c");

const LIBB: [(&str, &str); 9] = sources!("libb":
    "include/libb/export.h" "include/libb/histogram.h" "include/libb/reserved.h" "include/libb/table.h"
    "include/libb/text.h" "src/fingerprint.c" "src/histogram.c" "src/table.c" "src/text.c");

const APP: [(&str, &str); 6] = sources!("app":
    "src/app.h" "src/main.c" "src/options.c" "src/report.c" "src/sample.c" "src/version.c");

impl Project {
    /// The demonstration project: `liba.bst`, `libb.bst` on top of it, `app.bst` on top of that.
    ///
    /// It has what makes prediction hard in small: equal files at two paths,
    /// an empty header, headers that reach an element through two others,
    /// and actions that a change of `liba` does not concern.
    ///
    /// # Errors
    /// None in practice: the project is a constant.
    pub fn demo(toolchain: Toolchain) -> Result<Self, Error> {
        let element = |name: &str, build_deps: &[&str], product, sources: &[(&str, &str)]| Element {
            name: name.to_owned(),
            build_deps: build_deps.iter().map(|&d| d.to_owned()).collect(),
            product,
            sources: sources.iter().map(|&(p, t)| (p.to_owned(), t.to_owned())).collect::<BTreeMap<_, _>>(),
        };
        let elements = vec![
            element("liba.bst", &[], Product::Library, &LIBA),
            element("libb.bst", &["liba.bst"], Product::Library, &LIBB),
            element("app.bst", &["libb.bst"], Product::Program, &APP),
        ];
        Self::new("demo", toolchain, elements)
    }

    /// The demonstration's change: a constant in a header of `liba` that code
    /// in all three elements depends on, and a constant in one of its C files.
    ///
    /// # Errors
    /// When this is not the demonstration project, or it was changed already.
    pub fn apply_demo_change(&mut self) -> Result<(), Error> {
        self.edit("liba.bst", "include/liba/config.h", "LIBA_CAPACITY 16", "LIBA_CAPACITY 24")?;
        self.edit("liba.bst", "src/checksum.c", "5381u", "5387u")
    }
}
