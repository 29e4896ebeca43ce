//! Which elements are staged to build one.

/// The direct dependencies of an element, by row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Row {
    pub(crate) build: Vec<usize>,
    pub(crate) runtime: Vec<usize>,
}

/// What is staged to build an element, in staging order: depth-first, each
/// build dependency after everything that it needs to run.
pub(crate) fn staged(rows: &[Row], element: usize) -> Vec<usize> {
    with_what_they_need(rows, &rows[element].build)
}

/// Elements, each after everything that it needs to run: how BuildStream stages a selection.
pub(crate) fn with_what_they_need(rows: &[Row], elements: &[usize]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = Set::new(rows.len());
    let mut way: Vec<(usize, std::slice::Iter<'_, usize>)> = Vec::new();
    for start in elements {
        if seen.insert(*start) {
            way.push((*start, rows[*start].runtime.iter()));
        }
        while let Some((row, rest)) = way.last_mut() {
            match rest.next() {
                Some(next) if seen.insert(*next) => way.push((*next, rows[*next].runtime.iter())),
                Some(_) => {}
                None => {
                    order.push(*row);
                    way.pop();
                }
            }
        }
    }
    order
}

/// For each element, its direct build dependencies and as few others as it
/// takes to have everything that is staged in their closure; in staging order.
///
/// Rows are expected dependencies first. Others make the lists longer, not wrong.
pub(crate) fn covering(rows: &[Row]) -> Vec<Vec<usize>> {
    let mut closures: Vec<Set> = Vec::with_capacity(rows.len());
    let mut lists = Vec::with_capacity(rows.len());
    for (element, Row { build, .. }) in rows.iter().enumerate() {
        let staged = staged(rows, element);
        let (mut chosen, mut covered) = (Set::new(rows.len()), Set::new(rows.len()));
        let mut choose = |row: usize, covered: &mut Set| {
            chosen.insert(row);
            covered.insert(row);
            if let Some(closure) = closures.get(row) {
                covered.extend(closure);
            }
        };
        for row in build {
            choose(*row, &mut covered);
        }
        // What was staged later has what was staged earlier in its closure, if anything has.
        for row in staged.iter().rev() {
            if !covered.contains(*row) {
                choose(*row, &mut covered);
            }
        }
        lists.push(staged.into_iter().filter(|row| chosen.contains(*row)).collect());
        closures.push(covered);
    }
    lists
}

/// A set of rows.
struct Set(Vec<u64>);

impl Set {
    fn new(rows: usize) -> Self {
        Self(vec![0; rows.div_ceil(64)])
    }

    fn contains(&self, row: usize) -> bool {
        self.0[row / 64] & (1 << (row % 64)) != 0
    }

    /// Whether the row is new.
    fn insert(&mut self, row: usize) -> bool {
        let is_new = !self.contains(row);
        self.0[row / 64] |= 1 << (row % 64);
        is_new
    }

    fn extend(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own |= other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn row(build: &[usize], runtime: &[usize]) -> Row {
        Row { build: build.to_vec(), runtime: runtime.to_vec() }
    }

    #[test]
    fn build_dependencies_are_staged_with_what_they_need_to_run() {
        // 0 tool, 1 base, 2 lib (built with tool, runs on base), 3 stack of lib, 4 app (built against the stack).
        let rows = [row(&[], &[]), row(&[], &[]), row(&[0], &[1]), row(&[2], &[2]), row(&[3], &[])];
        assert_eq!(staged(&rows, 4), [1, 2, 3], "the tool is not needed to run");
        assert_eq!(staged(&rows, 3), [1, 2]);
        assert_eq!(staged(&rows, 2), [0]);
        let lists: [&[usize]; 5] = [&[], &[], &[0], &[1, 2], &[3]];
        assert_eq!(covering(&rows), lists, "the stack covers lib, lib does not cover what it runs on");
    }

    #[test]
    fn a_long_chain_is_no_deep_recursion() {
        let count = 20_000;
        let chain = |i: usize| if i == 0 { row(&[], &[]) } else { row(&[i - 1], &[i - 1]) };
        let rows: Vec<_> = (0..count).map(chain).collect();
        assert_eq!(staged(&rows, count - 1).len(), count - 1);
    }

    /// Rows that depend on earlier rows only.
    fn graphs() -> impl Strategy<Value = Vec<Row>> {
        vec((vec(any::<prop::sample::Index>(), 0..4), vec(any::<prop::sample::Index>(), 0..4)), 1..40).prop_map(
            |picks| {
                let rows = picks.iter().enumerate().map(|(row, (build, runtime))| {
                    let earlier = |picks: &[prop::sample::Index]| {
                        if row == 0 { Vec::new() } else { picks.iter().map(|pick| pick.index(row)).collect() }
                    };
                    Row { build: earlier(build), runtime: earlier(runtime) }
                });
                rows.collect()
            },
        )
    }

    /// The same as a definition: everything reachable over runtime edges from the build dependencies.
    fn reachable(rows: &[Row], element: usize) -> BTreeSet<usize> {
        let mut all: BTreeSet<usize> = rows[element].build.iter().copied().collect();
        while let Some(next) = all.iter().flat_map(|row| &rows[*row].runtime).find(|row| !all.contains(row)) {
            all.insert(*next);
        }
        all
    }

    fn closure(lists: &[Vec<usize>], element: usize) -> BTreeSet<usize> {
        let mut all: BTreeSet<usize> = lists[element].iter().copied().collect();
        while let Some(next) = all.iter().flat_map(|row| &lists[*row]).find(|row| !all.contains(row)) {
            all.insert(*next);
        }
        all
    }

    proptest! {
        #[test]
        fn rows_in_circles_come_to_an_end(edges in vec((0_usize..9, 0_usize..9, any::<bool>()), 0..30)) {
            let mut rows = vec![Row::default(); 9];
            for (from, to, build) in edges {
                if build { rows[from].build.push(to) } else { rows[from].runtime.push(to) }
            }
            let lists = covering(&rows);
            for element in 0..rows.len() {
                prop_assert_eq!(staged(&rows, element).into_iter().collect::<BTreeSet<_>>(), reachable(&rows, element));
                prop_assert!(closure(&lists, element).is_superset(&reachable(&rows, element)));
            }
        }

        #[test]
        fn closures_of_the_lists_have_everything_that_is_staged(rows in graphs()) {
            let lists = covering(&rows);
            for element in 0..rows.len() {
                let order = staged(&rows, element);
                let expected = reachable(&rows, element);
                prop_assert_eq!(&order.iter().copied().collect::<BTreeSet<_>>(), &expected);
                prop_assert_eq!(order.len(), expected.len());
                for (place, row) in order.iter().enumerate() {
                    prop_assert!(rows[*row].runtime.iter().all(|below| order[..place].contains(below)));
                }
                let listed: BTreeSet<_> = lists[element].iter().copied().collect();
                prop_assert!(listed.is_subset(&expected) && closure(&lists, element).is_superset(&expected));
                prop_assert!(rows[element].build.iter().all(|direct| listed.contains(direct)));
            }
        }
    }
}
