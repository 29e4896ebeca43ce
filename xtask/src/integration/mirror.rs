//! Where this machine gets its Debian packages from, by its own configuration.

use std::fs;
use std::path::Path;

use crate::Failure;

/// Names the mirror where the machine's configuration names none.
const OVERRIDE: &str = "BST_SA_DEBIAN_MIRROR";

/// The base address of a Debian archive.
pub(crate) fn of_this_machine() -> Result<String, Failure> {
    if let Ok(mirror) = std::env::var(OVERRIDE) {
        return Ok(mirror);
    }
    let mut uris = Vec::new();
    let apt = Path::new("/etc/apt");
    let mut files = vec![apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(apt.join("sources.list.d")) {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|e| e.to_str()) {
            Some("sources") => uris.extend(deb822_uris(&text)),
            Some("list") => uris.extend(one_line_uris(&text)),
            _ => {}
        }
    }
    choose(&uris).ok_or_else(|| {
        Failure::new(format!(
            "the machine's apt sources name no Debian archive ({} addresses seen); set {OVERRIDE} to one",
            uris.len()
        ))
    })
}

/// An archive of Debian itself: not the security archive, not another vendor's.
fn choose(uris: &[String]) -> Option<String> {
    let is_archive = |uri: &&String| uri.trim_end_matches('/').ends_with("/debian");
    let is_debian = |uri: &&String| uri.contains("debian") && !uri.contains("security");
    uris.iter().find(is_archive).or_else(|| uris.iter().find(is_debian)).cloned()
}

/// The addresses of the enabled stanzas for binary packages of a `.sources`
/// file: fields with continuation lines, comments anywhere.
fn deb822_uris(text: &str) -> Vec<String> {
    let mut uris = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in stanza {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push_str(line);
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.trim().to_ascii_lowercase(), value.to_owned()));
            }
        }
        let words = |name: &str| {
            let field = fields.iter().find(|(n, _)| n == name);
            field.map(|(_, value)| value.split_whitespace().collect::<Vec<_>>()).unwrap_or_default()
        };
        if words("enabled") != ["no"] && words("types").contains(&"deb") {
            uris.extend(words("uris").into_iter().map(str::to_owned));
        }
    }
    uris
}

/// The addresses of the lines for binary packages of a `.list` file.
fn one_line_uris(text: &str) -> Vec<String> {
    let entries = text.lines().filter_map(|line| line.trim().strip_prefix("deb "));
    entries
        .filter_map(|entry| {
            let entry = entry.trim_start();
            let after_options = entry.strip_prefix('[').map_or(Some(entry), |rest| Some(rest.split_once(']')?.1))?;
            after_options.split_whitespace().next().map(str::to_owned)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_disabled_stanzas_of_deb822_do_not_count() {
        let text = "Types: deb\n# URIs: http://old.example/debian\nURIs: http://a.example/debian\n\
                    Suites: stable\n\nTypes: deb\nEnabled: no\nURIs: http://b.example/debian\n\n\
                    Types: deb-src\nURIs: http://c.example/debian\n\n\
                    types: deb deb-src\nuris:\n http://d.example/x\n#\n http://e.example/debian-security\n";
        let found = deb822_uris(text);
        assert_eq!(found, ["http://a.example/debian", "http://d.example/x", "http://e.example/debian-security"]);
        assert_eq!(choose(&found).as_deref(), Some("http://a.example/debian"));
    }

    #[test]
    fn options_and_comments_of_the_classic_format_are_understood() {
        let text = "# deb http://a.example/debian x main\ndeb-src http://b.example/debian x main\n\
                    deb [arch=amd64 trusted=yes] http://c.example/debian/ x main\n  deb http://d.example/debian x main\n";
        let found = one_line_uris(text);
        assert_eq!(found, ["http://c.example/debian/", "http://d.example/debian"]);
        assert_eq!(choose(&found).as_deref(), Some("http://c.example/debian/"));
    }

    #[test]
    fn other_archives_are_not_taken_for_debian() {
        let uris = ["http://a.example/node", "http://a.example/debian-security"].map(str::to_owned);
        assert_eq!(choose(&uris), None);
    }
}
