//! Names that are drawn by lot in each build.

use reapi_proto::raw::Command;

/// A segment of a path that a command works on, and that will be another one
/// in the next build. CMake's `try_compile` works in `CMakeScratch/TryCompile-XXXXXX`
/// (`CMakeTmp` before 3.25) on targets named `cmTC_xxxxx`.
pub(crate) fn random_name(command: &Command) -> Option<String> {
    let paths = std::iter::once(command.working_directory()).chain(command.output_paths()).chain(command.arguments());
    let mut segments = paths.flat_map(|path| path.split(|byte| matches!(byte, b'/' | b'=')));
    let is_random = |segment: &&[u8]| {
        let drawn = |start: &[u8], length: usize| {
            segment
                .strip_prefix(start)
                .is_some_and(|rest| rest.len() >= length && rest[..length].iter().all(u8::is_ascii_alphanumeric))
        };
        drawn(b"TryCompile-", 6) || drawn(b"cmTC_", 5)
    };
    segments.find(is_random).map(|segment| String::from_utf8_lossy(segment).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use reapi_proto::v2;

    fn found(directory: &str, arguments: &[&str]) -> Option<String> {
        let command = v2::Command {
            working_directory: directory.to_owned(),
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            ..v2::Command::default()
        };
        random_name(&Command::parse(command.encode_to_vec().into()).unwrap())
    }

    #[test]
    fn the_names_of_cmakes_probes_are_found_wherever_they_stand() {
        let scratch = "buildstream/p/e.bst/_b/CMakeFiles/CMakeScratch/TryCompile-a1B2c3";
        assert_eq!(found(scratch, &["cc", "-c", "x.c"]).as_deref(), Some("TryCompile-a1B2c3"));
        let output = &["cc", "-o", "CMakeFiles/cmTC_1f2e3.dir/testCCompiler.c.o"];
        assert_eq!(found("w", output).as_deref(), Some("cmTC_1f2e3.dir"));
        assert_eq!(found("w", &["cc", "--out=/x/cmTC_1f2e3"]).as_deref(), Some("cmTC_1f2e3"));
        assert_eq!(found("TryCompile", &["cc", "TryCompile-.c", "cmTC.c", "conftest.c"]), None);
    }
}
