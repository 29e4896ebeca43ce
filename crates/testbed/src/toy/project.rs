//! What is built: elements with sources and dependencies.

use std::collections::{BTreeMap, BTreeSet};

use reapi_proto::DigestFunction;

use super::{Error, File, FileTree, Toolchain};

/// A project: elements in build order.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its name, the second component of every working directory.
    pub name: String,
    /// Platform properties of every action.
    pub platform: Vec<(String, String)>,
    /// The compiler.
    pub toolchain: Toolchain,
    elements: Vec<Element>,
}

/// One element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    /// Its name, as `NAME.bst`.
    pub name: String,
    /// Direct build dependencies, by name.
    pub build_deps: Vec<String>,
    /// What it links.
    pub product: Product,
    /// Texts of the source files by path. Public headers are below `include/`, C files below `src/`.
    pub sources: BTreeMap<String, String>,
}

/// What an element links from its objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Product {
    /// A shared library, staged as `usr/lib/NAME.so`.
    Library,
    /// A program, staged as `usr/bin/NAME`.
    Program,
}

impl Element {
    /// Its name without the extension.
    #[must_use]
    pub fn stem(&self) -> &str {
        self.name.strip_suffix(".bst").unwrap_or(&self.name)
    }

    /// The linked file's path below the working directory.
    #[must_use]
    pub fn product_path(&self) -> String {
        match self.product {
            Product::Library => format!("{}.so", self.stem()),
            Product::Program => self.stem().to_owned(),
        }
    }

    /// The linked file's path where dependents stage it.
    #[must_use]
    pub fn staged_product_path(&self) -> String {
        match self.product {
            Product::Library => format!("usr/lib/{}", self.product_path()),
            Product::Program => format!("usr/bin/{}", self.product_path()),
        }
    }

    /// The sources as a tree.
    #[must_use]
    pub fn source_tree(&self, function: DigestFunction) -> FileTree {
        let mut tree = FileTree::default();
        for (path, text) in &self.sources {
            tree.insert(path.clone(), File { digest: function.digest(text.as_bytes()), executable: false });
        }
        tree
    }
}

/// The keys of an element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Keys {
    pub(super) weak: String,
    pub(super) strong: String,
}

impl Project {
    /// A project of these elements, which must be in build order.
    ///
    /// # Errors
    /// When an element depends on itself, on a later or on an unknown one.
    pub fn new(name: &str, toolchain: Toolchain, elements: Vec<Element>) -> Result<Self, Error> {
        let mut known = BTreeSet::new();
        for element in &elements {
            if let Some(dependency) = element.build_deps.iter().find(|d| !known.contains(d.as_str())) {
                return Err(Error::project(&element.name, format!("{dependency} is not an element before it")));
            }
            if !known.insert(element.name.as_str()) {
                return Err(Error::project(&element.name, "there are two of that name"));
            }
        }
        let platform = vec![("OSFamily".to_owned(), "linux".to_owned())];
        Ok(Self { name: name.to_owned(), platform, toolchain, elements })
    }

    /// The elements in build order.
    #[must_use]
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// The element of that name.
    #[must_use]
    pub fn element(&self, name: &str) -> Option<&Element> {
        self.elements.iter().find(|e| e.name == name)
    }

    /// Adds or replaces a source file.
    ///
    /// # Errors
    /// When there is no such element.
    pub fn write(&mut self, element: &str, path: &str, text: impl Into<String>) -> Result<(), Error> {
        self.sources(element)?.insert(path.to_owned(), text.into());
        Ok(())
    }

    /// Replaces every occurrence of `from` in a source file.
    ///
    /// # Errors
    /// When there is no such element or file, or nothing to replace in it.
    pub fn edit(&mut self, element: &str, path: &str, from: &str, to: &str) -> Result<(), Error> {
        let text = self
            .sources(element)?
            .get_mut(path)
            .ok_or_else(|| Error::project(element, format!("there is no source file {path}")))?;
        if !text.contains(from) {
            return Err(Error::project(element, format!("there is no {from:?} in {path}")));
        }
        *text = text.replace(from, to);
        Ok(())
    }

    /// Removes a source file.
    ///
    /// # Errors
    /// When there is no such element or file.
    pub fn remove(&mut self, element: &str, path: &str) -> Result<(), Error> {
        let removed = self.sources(element)?.remove(path);
        removed.map(drop).ok_or_else(|| Error::project(element, format!("there is no source file {path}")))
    }

    fn sources(&mut self, element: &str) -> Result<&mut BTreeMap<String, String>, Error> {
        let found = self.elements.iter_mut().find(|e| e.name == element);
        found.map(|e| &mut e.sources).ok_or_else(|| Error::project(element, "there is no such element"))
    }

    /// All dependencies of an element, direct and indirect, in build order.
    #[must_use]
    pub fn closure(&self, element: &Element) -> Vec<&Element> {
        let mut wanted: BTreeSet<&str> = element.build_deps.iter().map(String::as_str).collect();
        let mut found = Vec::new();
        for candidate in self.elements.iter().rev() {
            if wanted.contains(candidate.name.as_str()) {
                wanted.extend(candidate.build_deps.iter().map(String::as_str));
                found.push(candidate);
            }
        }
        found.reverse();
        found
    }

    /// The keys of every element, in build order.
    ///
    /// The weak key covers the element itself and the names of its
    /// dependencies; the strong key covers the dependencies' strong keys too.
    pub(super) fn keys(&self, function: DigestFunction) -> Vec<Keys> {
        let mut keys: Vec<Keys> = Vec::new();
        for element in &self.elements {
            let mut weak = KeyMaker::new(function);
            weak.add("project", &self.name);
            weak.add("element", &element.name);
            weak.add("product", &element.product_path());
            self.toolchain.describe().for_each(|word| weak.add("toolchain", &word));
            self.platform.iter().for_each(|(name, value)| weak.add(name, value));
            for (path, file) in element.source_tree(function).iter() {
                weak.add(path, &file.digest.to_string());
            }
            element.build_deps.iter().for_each(|d| weak.add("depends", d));
            let weak = weak.finish();
            let mut strong = KeyMaker::new(function);
            strong.add("weak", &weak);
            for (dependency, key) in self.elements.iter().zip(&keys) {
                if element.build_deps.contains(&dependency.name) {
                    strong.add(&dependency.name, &key.strong);
                }
            }
            keys.push(Keys { weak, strong: strong.finish() });
        }
        keys
    }
}

/// Hashes name-value pairs so that no two lists of pairs look the same.
struct KeyMaker(reapi_proto::Hasher);

impl KeyMaker {
    fn new(function: DigestFunction) -> Self {
        Self(function.hasher())
    }

    fn add(&mut self, name: &str, value: &str) {
        for part in [name, value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part.as_bytes());
        }
    }

    fn finish(self) -> String {
        self.0.finish().to_hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn element(name: &str, build_deps: &[&str]) -> Element {
        Element {
            name: name.to_owned(),
            build_deps: build_deps.iter().map(|&d| d.to_owned()).collect(),
            product: Product::Library,
            sources: BTreeMap::from([("src/x.c".to_owned(), "int x;\n".to_owned())]),
        }
    }

    fn chain() -> Project {
        let elements = vec![element("a.bst", &[]), element("b.bst", &["a.bst"]), element("c.bst", &["b.bst"])];
        Project::new("p", Toolchain::at("/usr/bin/cc"), elements).unwrap()
    }

    #[test]
    fn keys_say_what_changed() {
        let mut project = chain();
        let before = project.keys(FUNCTION);
        project.edit("b.bst", "src/x.c", "int", "long").unwrap();
        let after = project.keys(FUNCTION);
        let weak: Vec<_> = before.iter().zip(&after).map(|(a, b)| a.weak == b.weak).collect();
        let strong: Vec<_> = before.iter().zip(&after).map(|(a, b)| a.strong == b.strong).collect();
        assert_eq!(weak, [true, false, true]);
        assert_eq!(strong, [true, false, false]);
    }

    #[test]
    fn the_closure_is_in_build_order() {
        let project = chain();
        let names = |name| project.closure(project.element(name).unwrap()).iter().map(|e| e.stem()).collect::<Vec<_>>();
        assert_eq!(names("c.bst"), ["a", "b"]);
        assert_eq!(names("a.bst"), Vec::<&str>::new());
    }

    #[test]
    fn mistakes_name_the_element() {
        let elements = vec![element("b.bst", &["a.bst"]), element("a.bst", &[])];
        let error = Project::new("p", Toolchain::at("/usr/bin/cc"), elements).unwrap_err();
        assert_eq!(error.to_string(), "b.bst: a.bst is not an element before it");
        assert!(chain().edit("a.bst", "src/x.c", "absent", "").is_err());
        assert!(chain().remove("a.bst", "src/y.c").is_err());
        assert!(chain().write("z.bst", "src/y.c", "").is_err());
    }
}
