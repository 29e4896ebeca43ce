//! From the changes to the verdict.

use std::hash::Hash;

use bytes::Bytes;

use super::bits::Bits;
use super::files::{COMMAND, Files, precompiled, twin};
use super::graph::{Edge, Graph, Target};
use super::{Doubt, Question, Verdict, World, moved};
use crate::directives::{Decision, Form, Operand};
use crate::path::file_name;
use crate::search::Search;

/// Arguments that name files which are not preprocessed, but say how to.
const READ_OTHERWISE: [&[u8]; 9] =
    [b"@", b"-specs", b"--specs", b"-fplugin", b"--config", b"-fmodule", b"-include-pch", b"-ivfsoverlay", b"-Xclang"];

/// What gcc reads by itself (GCC internals manual, `TARGET_C_PREINCLUDE`).
const PREDEFINITIONS: &[u8] = b"stdc-predef.h";

/// The answer; as an error where it comes early.
pub(super) fn ask<K: Copy + Eq + Hash, W: World<K>>(
    question: &Question<'_, K>,
    world: &W,
) -> Result<Verdict<K>, Verdict<K>> {
    let mut files = Files::new(question, world)?;
    if question.appeared.is_empty() && !files.any_gone() && !files.any_changed() {
        return Ok(Verdict::Same);
    }
    let doubts = question.command.doubts();
    if let Some(doubt) = doubts.iter().find(|doubt| READ_OTHERWISE.iter().any(|option| doubt.starts_with(option))) {
        return Err(Verdict::Unsure(Doubt::Argument(doubt.clone())));
    }
    files.load(false, world)?;
    if let Some(verdict) = twin(&files, |_| true) {
        return Err(verdict);
    }
    if question.appeared.is_empty() && !files.any_gone() && !files.list.iter().any(|file| file.differs()) {
        return Ok(Verdict::Same);
    }
    if let Some(doubt) = doubts.first() {
        return Err(Verdict::Unsure(Doubt::Argument(doubt.clone())));
    }
    for file in files.list.iter().filter(|file| file.differs()) {
        let (old, new) = (file.old.into_iter(), file.new.into_iter());
        for (old, new) in old.zip(new) {
            if old.odd() || new.odd() {
                return Err(Verdict::Unsure(Doubt::Odd(file.path.clone())));
            }
            if old.reads_once() != new.reads_once() {
                return Err(Verdict::Unsure(Doubt::Guard(file.path.clone())));
            }
        }
    }
    let recorded = question.recorded.iter().map(|(path, _)| path);
    if let Some(verdict) = precompiled(recorded.chain(question.appeared)) {
        return Err(verdict);
    }
    files.load(true, world)?;
    let search = Search::new(question.command, question.working_directory, question.standard);
    let graph = Graph::new(question, world, files, search)?;
    Walk {
        graph,
        read: Bits::default(),
        fresh: Vec::new(),
        maybe: Vec::new(),
        broken: None,
        lacks: Vec::new(),
        waits: Vec::new(),
    }
    .answer()
}

/// An include, by its file and its index there, and the file it leads to.
pub(super) type Step = (usize, usize, usize);

pub(super) struct Walk<'q, 'w, K, W> {
    pub(super) graph: Graph<'q, 'w, K, W>,
    /// The files that are certainly read now.
    pub(super) read: Bits,
    /// Includes that lead somewhere else than then, or are new.
    fresh: Vec<Step>,
    /// The same, under a condition.
    maybe: Vec<Step>,
    /// An include that is certainly followed, by its file and index, and leads nowhere.
    broken: Option<(usize, usize)>,
    lacks: Vec<K>,
    waits: Vec<Bytes>,
}

impl<K: Copy + Eq + Hash, W: World<K>> Walk<'_, '_, K, W> {
    fn answer(mut self) -> Result<Verdict<K>, Verdict<K>> {
        self.visit(vec![COMMAND])?;
        let lost_steps = self.lost_steps()?;
        let lost = self.lost_files(&lost_steps)?;
        let any_gone = self.graph.files.any_gone();
        if any_gone || lost.iter().next().is_some() {
            self.all_explained()?;
        }
        // What no change can reach is still read.
        let stays = (COMMAND + 1..self.graph.old.len())
            .filter(|number| !lost.contains(*number) && !self.graph.file(*number).gone())
            .collect();
        self.visit(stays)?;
        let mut removed = Bits::default();
        for number in COMMAND + 1..self.graph.old.len() {
            if self.graph.file(number).gone() || !self.read.contains(number) {
                removed.insert(number);
            }
        }
        self.settle(&removed)?;
        if let Some(verdict) = twin(&self.graph.files, |number| self.read.contains(number)) {
            return Err(verdict);
        }
        self.nothing_asked_for(any_gone)?;
        let alters = any_gone || !self.fresh.is_empty() || !lost_steps.is_empty();
        if alters && self.graph.question.command.sources().len() > 1 {
            return Err(Verdict::Unsure(Doubt::SeveralSources));
        }
        moved::check(&self, &self.fresh, &lost_steps, &removed)?;
        let paths = |numbers: &mut dyn Iterator<Item = usize>| {
            let mut paths: Vec<Bytes> = numbers.map(|number| self.graph.file(number).path.clone()).collect();
            paths.sort_unstable();
            paths
        };
        let added = paths(&mut self.read.iter().filter(|number| *number >= self.graph.old.len()));
        let removed = paths(&mut removed.iter());
        if added.is_empty() && removed.is_empty() {
            return Ok(Verdict::Same);
        }
        Ok(Verdict::Changed { added, removed })
    }

    /// Follows what is certainly included, from files that are certainly read.
    fn visit(&mut self, mut stack: Vec<usize>) -> Result<(), Verdict<K>> {
        while let Some(number) = stack.pop() {
            if !self.read.insert(number) {
                continue;
            }
            if number >= self.graph.old.len() && !self.open(number)? {
                continue;
            }
            for at in 0..self.graph.new[number].len() {
                stack.extend(self.follow(number, at)?);
            }
        }
        if !self.lacks.is_empty() {
            return Err(Verdict::Lacks { contents: std::mem::take(&mut self.lacks) });
        }
        if !self.waits.is_empty() {
            return Err(Verdict::Waits { paths: std::mem::take(&mut self.waits) });
        }
        match self.broken {
            // Only now, because it depends on what all the others ask for.
            Some((number, at)) => Err(self.verdict_broken(number, at)),
            None => Ok(()),
        }
    }

    /// Takes in a file that was not read then; whether its text is at hand.
    fn open(&mut self, number: usize) -> Result<bool, Verdict<K>> {
        let file = self.graph.file(number);
        let Some(directives) = file.new else {
            let content = file.now.filter(|content| !self.lacks.contains(content));
            self.lacks.extend(content);
            return Ok(false);
        };
        if directives.odd() {
            return Err(Verdict::Unsure(Doubt::Odd(file.path.clone())));
        }
        self.graph.touch(number);
        let edges = self.graph.new_edges(number)?;
        if self.graph.new.len() <= number {
            self.graph.new.resize(number + 1, Vec::new());
        }
        self.graph.new[number] = edges;
        Ok(true)
    }

    /// Where an include of a file that is read certainly leads.
    fn follow(&mut self, number: usize, at: usize) -> Result<Option<usize>, Verdict<K>> {
        let edge = &self.graph.new[number][at];
        if edge.decision == Decision::Never {
            return Ok(None);
        }
        let always = edge.decision == Decision::Always;
        let then = edge.kept.map(|then| &self.graph.old[number][then].target);
        let fresh = then != Some(&edge.target);
        match &edge.target {
            Target::File(target) => {
                let target = *target;
                if fresh {
                    if always { &mut self.fresh } else { &mut self.maybe }.push((number, at, target));
                }
                Ok(always.then_some(target))
            }
            Target::Nowhere if !fresh => Ok(None),
            Target::Nowhere if !always => match then {
                // It was found, so it may have been active.
                Some(Target::File(then)) => {
                    Err(Verdict::Unsure(Doubt::Conditional(self.graph.file(*then).path.clone())))
                }
                _ => Ok(None),
            },
            Target::Nowhere if self.graph.partial => Err(Verdict::Unsure(Doubt::Partial(self.name(number, at)))),
            Target::Nowhere => {
                self.broken = self.broken.or(Some((number, at)));
                Ok(None)
            }
            Target::Unclear(_) if edge.kept.is_some() => Ok(None),
            Target::Unclear(_) => Err(Verdict::Unsure(Doubt::Computed(self.graph.file(number).path.clone()))),
            Target::Pending(path) => {
                if !self.waits.contains(path) {
                    self.waits.push(path.clone());
                }
                Ok(None)
            }
            Target::Outside => Err(Verdict::Unsure(Doubt::Outside(self.name(number, at)))),
            Target::Unrecorded => Err(Verdict::Unsure(Doubt::Partial(self.name(number, at)))),
        }
    }

    /// What the include names, as it is written.
    fn name(&self, number: usize, at: usize) -> Bytes {
        if number == COMMAND {
            return self.graph.question.command.forced().get(at).map(|f| f.name.clone()).unwrap_or_default();
        }
        let include = self.graph.file(number).new.and_then(|directives| directives.includes().get(at));
        include.map_or_else(Bytes::new, |include| match &include.operand {
            Operand::Quote(name) | Operand::Angle(name) | Operand::Computed(name) => name.clone(),
        })
    }

    fn verdict_broken(&self, number: usize, at: usize) -> Verdict<K> {
        let include = self.name(number, at);
        if let Some((_, _, target)) = self.maybe.iter().find(|(_, _, target)| !self.read.contains(*target)) {
            // What that one asks for is not known.
            return Verdict::Unsure(Doubt::Conditional(self.graph.file(*target).path.clone()));
        }
        // gcc lets an include of nothing pass where `__has_include` has asked for it before.
        for file in &self.graph.files.list {
            let asks = |probe: Operand| match probe {
                Operand::Quote(name) | Operand::Angle(name) => file_name(&name) == file_name(&include),
                Operand::Computed(_) => true,
            };
            if file.new.is_some_and(|directives| directives.all_probes().any(asks)) {
                return Verdict::Unsure(Doubt::Probe(file.path.clone()));
            }
        }
        let file = if number == COMMAND { include.clone() } else { self.graph.file(number).path.clone() };
        Verdict::Broken { file, include }
    }

    /// The includes of recorded files that are no more, or lead somewhere else.
    fn lost_steps(&self) -> Result<Vec<Step>, Verdict<K>> {
        let mut lost = Vec::new();
        for (number, old) in self.graph.old.iter().enumerate() {
            let gone = self.graph.file(number).gone();
            let mut still: Vec<Option<&Edge>> = vec![None; old.len()];
            for edge in &self.graph.new[number] {
                if let Some(then) = edge.kept.filter(|_| !gone) {
                    still[then] = Some(edge);
                }
            }
            for (at, (then, now)) in old.iter().zip(still).enumerate() {
                match (&then.target, now) {
                    _ if then.decision == Decision::Never => {}
                    (Target::Unclear(_), Some(_)) => {}
                    (Target::Unclear(_), None) => {
                        return Err(Verdict::Unsure(Doubt::Computed(self.graph.file(number).path.clone())));
                    }
                    (target, Some(now)) if *target == now.target => {}
                    _ => lost.extend(then.possible().iter().map(|target| (number, at, *target))),
                }
            }
        }
        Ok(lost)
    }

    /// The recorded files for whose being read one of the lost includes may
    /// have been the reason, by way of others or not.
    fn lost_files(&self, steps: &[Step]) -> Result<Bits, Verdict<K>> {
        let mut lost = Bits::default();
        let mut stack: Vec<usize> = steps.iter().map(|(_, _, target)| *target).collect();
        while let Some(number) = stack.pop() {
            if self.read.contains(number) || self.graph.file(number).gone() || lost.contains(number) {
                continue;
            }
            let path = &self.graph.file(number).path;
            if file_name(path) == PREDEFINITIONS {
                match self.graph.question.command.reads_predefinitions() {
                    Some(true) => continue,
                    Some(false) => {}
                    None => return Err(Verdict::Unsure(Doubt::Unexplained(path.clone()))),
                }
            }
            lost.insert(number);
            stack.extend(self.graph.old[number].iter().flat_map(Edge::possible));
        }
        Ok(lost)
    }

    /// That something in the recorded texts includes each recorded file.
    fn all_explained(&self) -> Result<(), Verdict<K>> {
        let reached = moved::closure(&self.graph.old, [COMMAND]);
        for number in COMMAND + 1..self.graph.old.len() {
            let path = &self.graph.file(number).path;
            let by_itself = file_name(path) == PREDEFINITIONS && !self.graph.file(number).gone();
            if !reached.contains(number) && !by_itself {
                return Err(Verdict::Unsure(Doubt::Unexplained(path.clone())));
            }
        }
        Ok(())
    }

    /// That conditions, and includes that cannot be resolved, lead only to what is read anyway.
    fn settle(&mut self, removed: &Bits) -> Result<(), Verdict<K>> {
        for (number, at, target) in std::mem::take(&mut self.maybe) {
            if !self.read.contains(target) {
                return Err(Verdict::Unsure(Doubt::Conditional(self.graph.file(target).path.clone())));
            }
            self.fresh.push((number, at, target));
        }
        let Some(first) = removed.iter().next() else { return Ok(()) };
        for number in self.read.iter() {
            for edge in self.graph.new.get(number).into_iter().flatten() {
                if let Some(target) = edge.possible().iter().find(|target| removed.contains(**target)) {
                    return Err(Verdict::Unsure(Doubt::Conditional(self.graph.file(*target).path.clone())));
                }
            }
            let includes = self.graph.file(number).new.into_iter().flat_map(|directives| directives.includes());
            if includes.into_iter().any(|include| matches!(include.operand, Operand::Computed(_))) {
                return Err(Verdict::Unsure(Doubt::Computed(self.graph.file(first).path.clone())));
            }
        }
        Ok(())
    }

    /// That no `__has_include` and no computed include is answered differently
    /// because of what came or went.
    fn nothing_asked_for(&mut self, any_gone: bool) -> Result<(), Verdict<K>> {
        if !any_gone && self.graph.appeared.is_empty() {
            return Ok(());
        }
        let numbers: Vec<usize> = self.read.iter().collect();
        for number in numbers {
            let Some(directives) = self.graph.file(number).new else { continue };
            let included = directives.includes().iter().zip(&self.graph.new[number]);
            let unclear = included.filter(|(_, edge)| matches!(edge.target, Target::Unclear(_)));
            for operand in unclear.map(|(include, _)| &include.operand).cloned().collect::<Vec<_>>() {
                let names = self.names_made(&operand);
                let differs = names.is_none_or(|names| names.iter().any(|name| self.graph.may_have_changed(name)));
                if differs {
                    return Err(Verdict::Unsure(Doubt::Computed(self.graph.file(number).path.clone())));
                }
            }
            for operand in directives.probes() {
                let names = self.graph.candidates(Form::Include, &operand, number);
                let differs = |path: &Bytes| self.graph.came_or_went(path);
                if names.is_none_or(|names| names.iter().flatten().any(differs)) {
                    return Err(Verdict::Unsure(Doubt::Probe(self.graph.file(number).path.clone())));
                }
            }
        }
        Ok(())
    }

    /// What the operand of an include may be, where it is a macro that is
    /// always defined as a plain name. `None`: that is not so.
    fn names_made(&self, operand: &Operand) -> Option<Vec<Operand>> {
        let Operand::Computed(name) = operand else { return Some(vec![operand.clone()]) };
        let mut names = Vec::new();
        for file in &self.graph.files.list {
            let texts = file.old.into_iter().chain(file.new);
            for m in texts.flat_map(|directives| directives.macros()).filter(|m| m.name == *name) {
                match m.names_header() {
                    operand @ Some(Operand::Quote(_) | Operand::Angle(_)) => names.extend(operand),
                    _ => return None,
                }
            }
        }
        (!names.is_empty()).then_some(names)
    }
}
