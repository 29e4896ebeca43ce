//! Who includes what: then, and now.

use std::hash::Hash;
use std::rc::Rc;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

use super::align::common;
use super::files::{COMMAND, File, Files};
use super::{Doubt, Found, Question, Verdict, World};
use crate::command::Language;
use crate::directives::{Decision, Directives, Form, Operand, Place};
use crate::path::{normalise, parent};
use crate::search::{Candidates, Search, may_mean};

/// An include and where it leads.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) decision: Decision,
    pub(super) target: Target,
    /// The same include in the recorded text, by its index.
    pub(super) kept: Option<usize>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    File(usize),
    Nowhere,
    /// Text cannot say; one of these, or something else.
    Unclear(Vec<usize>),
    /// What is at this path is not known.
    Pending(Bytes),
    /// One of the candidates is outside of the tree.
    Outside,
    /// A file that came may be what an include means whose target was not recorded.
    Unrecorded,
}

impl Edge {
    /// The files that it may lead to; none if it is never followed.
    pub(super) fn possible(&self) -> &[usize] {
        match (&self.target, self.decision) {
            (_, Decision::Never) => &[],
            (Target::File(file), _) => std::slice::from_ref(file),
            (Target::Unclear(files), _) => files,
            _ => &[],
        }
    }

    /// The file that it leads to, if it is followed.
    pub(super) fn file(&self) -> Option<usize> {
        match self.target {
            Target::File(file) => Some(file),
            _ => None,
        }
    }

    /// The file that it certainly leads to.
    pub(super) fn certain(&self) -> Option<usize> {
        self.file().filter(|_| self.decision == Decision::Always)
    }
}

/// The edges of every file, in the order of its includes.
pub(super) type Edges = Vec<Vec<Edge>>;

pub(super) struct Graph<'q, 'w, K, W> {
    pub(super) question: &'q Question<'q, K>,
    pub(super) world: &'w W,
    pub(super) files: Files<'w, K>,
    pub(super) search: Search,
    pub(super) appeared: FxHashSet<&'q [u8]>,
    /// Unconditional includes of recorded files lead to files that are not recorded.
    pub(super) partial: bool,
    /// Macros that some file touches.
    touched: FxHashSet<&'w [u8]>,
    cache: FxHashMap<(Bytes, Operand), Rc<Candidates>>,
    pub(super) old: Edges,
    /// Those of files read in addition are made when they are first read.
    pub(super) new: Edges,
}

impl<'q, 'w, K: Copy + Eq + Hash, W: World<K>> Graph<'q, 'w, K, W> {
    /// The graph of the recorded files, all of whose directives are loaded.
    pub(super) fn new(
        question: &'q Question<'q, K>,
        world: &'w W,
        files: Files<'w, K>,
        search: Search,
    ) -> Result<Self, Verdict<K>> {
        let mut graph = Graph {
            question,
            world,
            files,
            search,
            appeared: question.appeared.iter().map(|path| &path[..]).collect(),
            partial: true,
            touched: FxHashSet::default(),
            cache: FxHashMap::default(),
            old: Vec::new(),
            new: Vec::new(),
        };
        let recorded = graph.files.list.len();
        for number in 0..recorded {
            let file = &mut graph.files.list[number];
            file.standard = graph.search.is_standard(&file.path);
            for directives in file.old.into_iter().chain(file.new) {
                graph.touched.extend(directives.macros().iter().map(|m| &m.name[..]));
            }
        }
        let roots = graph.roots()?;
        graph.old.push(roots.0);
        graph.new.push(roots.1);
        for number in COMMAND + 1..recorded {
            let edges = graph.old_edges(number);
            graph.old.push(edges);
        }
        let leads_nowhere = |edge: &Edge| edge.decision == Decision::Always && edge.target == Target::Nowhere;
        graph.partial = graph.old.iter().flatten().any(leads_nowhere);
        if !graph.partial {
            for number in COMMAND + 1..recorded {
                let Some(directives) = graph.files.list[number].old else { continue };
                for (at, include) in directives.includes().iter().enumerate() {
                    graph.old[number][at].decision = graph.decide(directives, include.place);
                }
            }
        }
        for number in COMMAND + 1..recorded {
            let edges = graph.new_edges(number)?;
            graph.new.push(edges);
        }
        Ok(graph)
    }

    pub(super) fn file(&self, number: usize) -> &File<'w, K> {
        &self.files.list[number]
    }

    /// Whether what stands at `place` is read, as far as that can be said.
    pub(super) fn decide(&self, directives: &Directives, place: Place) -> Decision {
        let command = self.question.command;
        let defined = |name: &[u8]| {
            by_language(command.language(), name).or_else(|| {
                if self.touched.contains(name) {
                    return None;
                }
                // Nobody defines it, so the compiler does or it is not defined.
                command.defines(name).or((!self.partial && !may_be_predefined(name)).then_some(false))
            })
        };
        let mut decision = Decision::Always;
        for condition in directives.conditions(place) {
            match condition.decide(&defined) {
                Decision::Never => return Decision::Never,
                Decision::Maybe => decision = Decision::Maybe,
                Decision::Always => {}
            }
        }
        decision
    }

    /// The edges of the command line, then and now.
    fn roots(&mut self) -> Result<(Vec<Edge>, Vec<Edge>), Verdict<K>> {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        let always = |target, kept| Edge { decision: Decision::Always, target, kept };
        for forced in self.question.command.forced() {
            let candidates = self.search.forced(&forced.name);
            let then = self.recorded(&candidates);
            let now = self.again(&candidates, then, Decision::Always);
            let index = old.len();
            old.push(always(then.map_or(Target::Nowhere, Target::File), None));
            new.push(always(now, Some(index)));
        }
        for source in self.question.command.sources() {
            let path = normalise(source, self.question.working_directory);
            let Some(number) = path.and_then(|path| self.files.find(&path)) else {
                return Err(Verdict::Unsure(Doubt::NotRecorded(source.clone())));
            };
            if self.file(number).gone() {
                return Err(Verdict::Broken { file: source.clone(), include: source.clone() });
            }
            let index = old.len();
            old.push(always(Target::File(number), None));
            new.push(always(Target::File(number), Some(index)));
        }
        Ok((old, new))
    }

    fn old_edges(&mut self, number: usize) -> Vec<Edge> {
        let Some(directives) = self.file(number).old else { return Vec::new() };
        let includes = directives.includes().iter();
        includes
            .map(|include| {
                let target = match self.candidates(include.form, &include.operand, number) {
                    Some(candidates) => self.recorded(&candidates).map_or(Target::Nowhere, Target::File),
                    None => self.unclear(&include.operand),
                };
                Edge { decision: self.decide(directives, include.place), target, kept: None }
            })
            .collect()
    }

    /// The edges of a file as it is now.
    ///
    /// # Errors
    /// [`Verdict::Unsure`]: the text changed too much to be compared.
    pub(super) fn new_edges(&mut self, number: usize) -> Result<Vec<Edge>, Verdict<K>> {
        let file = self.file(number);
        let Some(directives) = file.new else { return Ok(Vec::new()) };
        let mut kept = vec![None; directives.includes().len()];
        if let Some(old) = file.old {
            let too_much = || Verdict::Unsure(Doubt::Odd(file.path.clone()));
            for (then, now) in common(old, directives).ok_or_else(too_much)? {
                kept[now] = Some(then);
            }
        }
        let mut edges = Vec::with_capacity(kept.len());
        for (include, kept) in directives.includes().iter().zip(kept) {
            let decision = self.decide(directives, include.place);
            let target = match self.candidates(include.form, &include.operand, number) {
                None => self.unclear(&include.operand),
                Some(candidates) => match kept.map(|then| self.old[number][then].file()) {
                    Some(then) => self.again(&candidates, then, decision),
                    None if decision == Decision::Never => Target::Nowhere,
                    None => self.anew(&candidates),
                },
            };
            edges.push(Edge { decision, target, kept });
        }
        Ok(edges)
    }

    /// What a name of an include in the file may mean.
    pub(super) fn candidates(&mut self, form: Form, operand: &Operand, number: usize) -> Option<Rc<Candidates>> {
        let includer = &self.files.list[number].path;
        if form != Form::Include && form != Form::Import {
            return self.search.candidates(form, operand, includer).map(Rc::new);
        }
        let directory = match operand {
            Operand::Quote(_) => includer.slice_ref(parent(includer)),
            Operand::Angle(_) => Bytes::new(),
            Operand::Computed(_) => return None,
        };
        let key = (directory, operand.clone());
        if let Some(known) = self.cache.get(&key) {
            return Some(Rc::clone(known));
        }
        let candidates = Rc::new(self.search.candidates(form, operand, includer)?);
        self.cache.insert(key, Rc::clone(&candidates));
        Some(candidates)
    }

    /// Whether there is a file at one of the two times only.
    pub(super) fn came_or_went(&self, path: &[u8]) -> bool {
        self.appeared.contains(path) || self.files.find(path).is_some_and(|number| self.file(number).gone())
    }

    /// Whether what came or went may be what an include means whose candidates are not known.
    pub(super) fn may_have_changed(&self, operand: &Operand) -> bool {
        let gone = self.files.list.iter().filter(|file| file.gone()).map(|file| &file.path[..]);
        self.appeared.iter().copied().chain(gone).any(|path| may_mean(operand, path))
    }

    /// What the name meant: of what was read, the first. An earlier one that
    /// was there would have been read instead.
    fn recorded(&self, candidates: &Candidates) -> Option<usize> {
        let found = candidates.iter().flatten().filter_map(|path| self.files.find(path));
        found.into_iter().find(|number| self.file(*number).recorded())
    }

    fn unclear(&self, operand: &Operand) -> Target {
        let files = self.files.list.iter().enumerate();
        Target::Unclear(files.filter(|(_, file)| may_mean(operand, &file.path)).map(|(number, _)| number).collect())
    }

    /// What a name means now that meant `then`: only what came or went matters.
    fn again(&mut self, candidates: &Candidates, then: Option<usize>, decision: Decision) -> Target {
        let came = |graph: &Self, path: &Bytes| graph.appeared.contains(&path[..]);
        let Some(then) = then else {
            // It was not active, or it means a file that the record does not have.
            let may_now = self.partial || decision == Decision::Always;
            let came = candidates.iter().flatten().any(|path| came(self, path));
            return if came && may_now { Target::Unrecorded } else { Target::Nowhere };
        };
        let mut passed = false;
        for candidate in candidates {
            let Some(path) = candidate else {
                if passed {
                    return Target::Outside;
                }
                continue;
            };
            match self.files.find(path).filter(|number| self.file(*number).recorded()) {
                Some(number) if !self.file(number).gone() => return Target::File(number),
                Some(number) => passed |= number == then,
                None if passed || came(self, path) => {
                    if let Some(target) = self.look(path) {
                        return target;
                    }
                }
                // It was absent, and has not appeared.
                None => {}
            }
        }
        Target::Nowhere
    }

    /// What a name means that is new.
    fn anew(&mut self, candidates: &Candidates) -> Target {
        for candidate in candidates {
            let Some(path) = candidate else { return Target::Outside };
            match self.files.find(path) {
                Some(number) if self.file(number).gone() => {}
                Some(number) => return Target::File(number),
                None => {
                    if let Some(target) = self.look(path) {
                        return target;
                    }
                }
            }
        }
        Target::Nowhere
    }

    /// What the world has at a path that is not recorded: a file is added. `None`: nothing.
    fn look(&mut self, path: &Bytes) -> Option<Target> {
        if let Some(number) = self.files.find(path) {
            return Some(Target::File(number));
        }
        match self.world.now(path) {
            Found::Absent => None,
            Found::Unknown => Some(Target::Pending(path.clone())),
            Found::File(content) => {
                let standard = self.search.is_standard(path);
                let (path, now) = (path.clone(), Some(content));
                let new = self.world.directives(content);
                Some(Target::File(self.files.add(File { path, then: None, now, old: None, new, standard })))
            }
        }
    }

    /// Takes in what a file that is read in addition touches.
    pub(super) fn touch(&mut self, number: usize) {
        if let Some(directives) = self.file(number).new {
            self.touched.extend(directives.macros().iter().map(|m| &m.name[..]));
        }
    }
}

/// Whether the language, and nothing else, defines the macro.
pub(super) fn by_language(language: Option<Language>, name: &[u8]) -> Option<bool> {
    let language = language?;
    match name {
        b"__cplusplus" => Some(matches!(language, Language::Cpp | Language::ObjCpp)),
        b"__OBJC__" => Some(matches!(language, Language::ObjC | Language::ObjCpp)),
        b"__ASSEMBLER__" => Some(language == Language::Assembler),
        _ => None,
    }
}

/// Whether a compiler may define the macro by itself. All but a few historical
/// names are reserved for that: they begin with an underscore.
fn may_be_predefined(name: &[u8]) -> bool {
    const OLD: [&[u8]; 8] = [b"WIN32", b"WIN64", b"WINNT", b"MIPSEL", b"MIPSEB", b"LANGUAGE_C", b"R3000", b"R4000"];
    name.starts_with(b"_") || OLD.contains(&name) || name.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}
