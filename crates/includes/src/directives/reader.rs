//! From the directives of a text to what matters of them.

use bytes::Bytes;

use super::condition::{Condition, Place, defined, expression, not_defined, value};
use super::lines::lines;
use super::words::{first_word, operand, probes};
use super::{Directives, Form, Include, Macro, MacroEvent};

/// How many branches of one `#if` are told apart. Texts by hand have a dozen;
/// the limit keeps the cost of hostile ones linear.
const MAX_BRANCHES: usize = 256;

pub(super) fn read(text: &[u8]) -> Directives {
    let mut reader = Reader::default();
    for line in lines(text) {
        reader.directive(&line);
    }
    reader.out.odd |= text.windows(3).any(|window| window == b"??/" || window == b"??=");
    reader.finish()
}

#[derive(Default)]
struct Reader {
    out: Directives,
    open: Vec<Open>,
}

/// An `#if` whose `#endif` is to come.
struct Open {
    /// Expressions of earlier branches whose value is not known.
    negated: Vec<Bytes>,
    holds: Option<Bytes>,
    /// The present branch is never read.
    dead: bool,
    /// Nothing of the whole `#if` is read.
    buried: bool,
    /// A branch so far is taken for certain: the later ones are dead.
    taken: bool,
    /// The present branch's condition, once something stands under it.
    place: Option<Place>,
}

impl Open {
    fn new(text: &Bytes, buried: bool) -> Open {
        let mut open = Open { negated: Vec::new(), holds: None, dead: false, buried, taken: false, place: None };
        open.branch(Some(text));
        open
    }

    /// Begins a branch; `None` is `#else`.
    fn branch(&mut self, text: Option<&Bytes>) {
        self.place = None;
        self.dead = self.taken;
        self.holds = None;
        match text.map(|text| (text, value(text, &|_| None))) {
            None | Some((_, Some(true))) => self.taken = true,
            Some((_, Some(false))) => self.dead = true,
            Some((text, None)) => self.holds = Some(text.clone()),
        }
    }

    /// Ends a branch: what follows is read only if its expression was false.
    fn turn(&mut self) -> bool {
        let full = self.negated.len() >= MAX_BRANCHES;
        if !full {
            self.negated.extend(self.holds.take());
        }
        full
    }
}

impl Reader {
    fn directive(&mut self, line: &Bytes) {
        let (name, rest) = first_word(line);
        match name {
            b"if" => self.condition(rest, self.dead(), |reader, text| reader.open(&text)),
            b"ifdef" => self.open(&defined(first_word(rest).0)),
            b"ifndef" => self.open(&not_defined(first_word(rest).0)),
            b"elif" => self.condition(rest, self.buried(), |reader, text| reader.branch(Some(&text))),
            b"elifdef" => self.branch(Some(&defined(first_word(rest).0))),
            b"elifndef" => self.branch(Some(&not_defined(first_word(rest).0))),
            b"else" => self.branch(None),
            b"endif" => {
                self.open.pop();
            }
            _ if self.dead() => {}
            b"include" => self.include(Form::Include, rest),
            b"include_next" => self.include(Form::Next, rest),
            b"import" => self.include(Form::Import, rest),
            b"embed" => self.include(Form::Embed, rest),
            b"define" => {
                let (name, _) = first_word(rest);
                // The blank between name and text says whether there are parameters.
                self.name(name, MacroEvent::Define(Bytes::copy_from_slice(&rest[name.len()..])));
            }
            b"undef" => self.name(first_word(rest).0, MacroEvent::Undefine),
            b"pragma" => self.pragma(rest),
            b"assert" | b"unassert" => {
                self.name(first_word(rest).0, MacroEvent::Other(Bytes::copy_from_slice(line)));
            }
            _ => {}
        }
    }

    fn dead(&self) -> bool {
        self.open.last().is_some_and(|open| open.dead || open.buried)
    }

    /// Whether the whole innermost `#if` is not read. An `#elif` behind a dead
    /// branch is evaluated all the same.
    fn buried(&self) -> bool {
        self.open.last().is_some_and(|open| open.buried)
    }

    fn condition(&mut self, rest: &[u8], skipped: bool, then: impl FnOnce(&mut Reader, Bytes)) {
        let text = expression(rest);
        if !skipped {
            self.out.asked.extend(probes(&text));
        }
        then(self, text);
    }

    fn open(&mut self, text: &Bytes) {
        let open = Open::new(text, self.dead());
        self.open.push(open);
    }

    fn branch(&mut self, text: Option<&Bytes>) {
        if let Some(open) = self.open.last_mut() {
            self.out.odd |= open.turn();
            open.branch(text);
        }
    }

    fn include(&mut self, form: Form, rest: &[u8]) {
        if !rest.is_empty() {
            let place = self.place();
            self.out.includes.push(Include { form, operand: operand(rest), place });
        }
    }

    fn name(&mut self, name: &[u8], event: MacroEvent) {
        if !name.is_empty() {
            let place = self.place();
            let (name, includes_before) = (Bytes::copy_from_slice(name), self.out.includes.len());
            self.out.macros.push(Macro { name, event, place, includes_before });
        }
    }

    fn pragma(&mut self, rest: &[u8]) {
        let (word, arguments) = first_word(rest);
        match word {
            // Under a condition it may not hold.
            b"once" if self.place().is_unconditional() => self.out.once = true,
            b"push_macro" | b"pop_macro" => {
                let name = arguments.split(|c| *c == b'"').nth(1).unwrap_or_default();
                self.name(name, MacroEvent::Other(Bytes::copy_from_slice(word)));
            }
            b"GCC" if first_word(arguments).0 == b"dependency" => self.out.odd = true,
            _ => {}
        }
    }

    /// Where the reader stands; makes the conditions that are not there yet.
    fn place(&mut self) -> Place {
        // The innermost ones without a place are at the end.
        let known = self.open.iter().rposition(|open| open.place.is_some());
        let mut parent = known.and_then(|at| self.open[at].place).unwrap_or_default();
        for open in &mut self.open[known.map_or(0, |at| at + 1)..] {
            if open.negated.is_empty() && open.holds.is_none() {
                open.place = Some(parent);
                continue;
            }
            let condition = Condition { parent, negated: open.negated.clone(), holds: open.holds.clone() };
            parent = Place(Some(self.out.conditions.len()));
            self.out.conditions.push(condition);
            open.place = Some(parent);
        }
        parent
    }

    fn finish(self) -> Directives {
        let mut out = self.out;
        let Some(guard) = guard(&out) else { return out };
        out.guard = Some(guard);
        // The guard's condition is the first, and the outermost of everything.
        out.conditions.remove(0);
        let shift = |place: &mut Place| place.0 = place.0.and_then(|at| at.checked_sub(1));
        out.conditions.iter_mut().for_each(|condition| shift(&mut condition.parent));
        out.includes.iter_mut().for_each(|include| shift(&mut include.place));
        out.macros.iter_mut().for_each(|m| shift(&mut m.place));
        out
    }
}

/// The macro of the guard around everything that matters in the text.
fn guard(out: &Directives) -> Option<Bytes> {
    let first = out.macros.first().filter(|first| first.includes_before == 0 && first.place == Place(Some(0)))?;
    let condition = out.conditions.first()?;
    let guards = condition.negated.is_empty()
        && condition.holds == Some(not_defined(&first.name))
        && matches!(first.event, MacroEvent::Define(_));
    let once = out.macros.iter().filter(|m| m.name == first.name).count() == 1;
    // Every other condition has the first one as its root: only it has no parent.
    let around_all = out.conditions.iter().skip(1).all(|condition| !condition.parent.is_unconditional())
        && out.includes.iter().all(|include| !include.place.is_unconditional())
        && out.macros.iter().all(|m| !m.place.is_unconditional());
    (guards && once && around_all).then(|| first.name.clone())
}
