//! Resource names and violation subjects.

use proptest::prelude::*;
use proptest::sample::select;
use reapi_proto::precondition::{missing, parse_subject, subject};
use reapi_proto::resource::{InstanceName, ReadName, ResourceError, WriteName};
use reapi_proto::v2::compressor::Value as Compressor;
use reapi_proto::{Digest, DigestError, DigestFunction};

use crate::arbitrary::digest;

const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn compressor() -> impl Strategy<Value = Compressor> {
    select(vec![Compressor::Identity, Compressor::Zstd, Compressor::Deflate, Compressor::Brotli])
}

fn instance() -> impl Strategy<Value = InstanceName> {
    "([a-z]{1,8}(/[a-z .]{1,3}){0,2})?".prop_filter_map("not reserved", |name| InstanceName::new(&name).ok())
}

proptest! {
    #[test]
    fn names_are_read_as_written(
        instance in instance(),
        compressor in compressor(),
        digest in digest(),
        upload_id in "[0-9a-f-]{36}",
        metadata in select(vec!["", "/x", "/x/blobs/y", "/"]),
    ) {
        let read = ReadName { instance: instance.clone(), compressor, digest };
        prop_assert_eq!(read.to_string().parse(), Ok(read));
        let write = WriteName::new(instance, upload_id, compressor, digest).unwrap();
        prop_assert_eq!(format!("{write}{metadata}").parse(), Ok(write));
    }

    #[test]
    fn subjects_are_read_as_written(digest in digest()) {
        prop_assert_eq!(parse_subject(&subject(&digest)), Ok(digest));
        let with_function = format!("blobs/{}/{digest}", digest.function().name().to_lowercase());
        prop_assert_eq!(parse_subject(&with_function), Ok(digest));
        prop_assert_eq!(parse_subject(&missing(&[digest]).violations[0].subject), Ok(digest));
    }

    #[test]
    fn any_text_is_read_or_refused(
        text in ".{0,40}",
        words in proptest::collection::vec(select(vec![
            "", "blobs", "uploads", "compressed-blobs", "zstd", "sha256", "blake3", "sha512", HASH, "12", "-1", "x", "é",
        ]), 0..9),
    ) {
        let words = words.join("/");
        for name in [&text, &words] {
            let _ = InstanceName::new(name);
            let _ = parse_subject(name);
            if let Ok(read) = name.parse::<ReadName>() {
                prop_assert_eq!(read.to_string().parse(), Ok(read));
            }
            if let Ok(write) = name.parse::<WriteName>() {
                prop_assert_eq!(write.to_string().parse(), Ok(write));
            }
        }
    }
}

#[test]
fn names_have_the_published_forms() {
    let digest: Digest = format!("{HASH}/12").parse().unwrap();
    let name = |instance: &str, compressor| ReadName { instance: instance.parse().unwrap(), compressor, digest };
    assert_eq!(name("", Compressor::Identity).to_string(), format!("blobs/{HASH}/12"));
    assert_eq!(name("a/b", Compressor::Identity).to_string(), format!("a/b/blobs/{HASH}/12"));
    assert_eq!(name("", Compressor::Zstd).to_string(), format!("compressed-blobs/zstd/{HASH}/12"));
    let upload = |instance: &str| {
        WriteName::new(instance.parse().unwrap(), "id", Compressor::Identity, digest).unwrap().to_string()
    };
    assert_eq!(upload(""), format!("uploads/id/blobs/{HASH}/12"));
    assert_eq!(upload("main"), format!("main/uploads/id/blobs/{HASH}/12"));
}

#[test]
fn the_function_segment_is_accepted_where_it_fits() {
    let read = |middle: &str| format!("i/blobs/{middle}{HASH}/12").parse::<ReadName>();
    assert_eq!(read("sha256/"), read(""));
    let digest_error = |middle| match read(middle) {
        Err(ResourceError::Digest(_, error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(digest_error("sha512/"), DigestError::Length { found: 64, expected: 128 });
    assert_eq!(digest_error("blake3/"), DigestError::Function("blake3".into()));
}

#[test]
fn other_names_are_refused() {
    let name = |text: &str| text.replace("HASH", HASH);
    for bad in [
        "",
        "blobs",
        "blobs/",
        "blobs/HASH",
        "/blobs/HASH/1",
        "a//blobs/HASH/1",
        "blobs/HASH/1/x",
        "blobs/HASH/",
        "blobs/HASH/-1",
        "blobs/HASH/01",
        "uploads/blobs/HASH/1",
        "a/uploads/x/blobs/HASH/1",
        "actions/blobs/HASH/1",
        "compressed-blobs/HASH/1",
        "compressed-blobs/identity/HASH/1",
        "compressed-blobs/lzma/HASH/1",
        "HASH/1",
    ] {
        assert!(name(bad).parse::<ReadName>().is_err(), "{bad}");
    }
    for bad in [
        "blobs/HASH/1",
        "uploads/HASH/1",
        "uploads//blobs/HASH/1",
        "/uploads/x/blobs/HASH/1",
        "uploads/x/blobs/HASH",
        "uploads/x/y/blobs/HASH/1",
        "operations/uploads/x/blobs/HASH/1",
        "blobs/uploads/x/blobs/HASH/1",
    ] {
        assert!(name(bad).parse::<WriteName>().is_err(), "{bad}");
    }
    for bad in ["", "HASH/1", "blobs/HASH", "blobs/HASH/1/x", "/blobs/HASH/1", "i/blobs/HASH/1", "blobs/md5/HASH/1"] {
        assert!(parse_subject(&name(bad)).is_err(), "{bad}");
    }
    for bad in ["/", "a/", "/a", "a//b", "blobs", "a/uploads", "capabilities/x"] {
        assert_eq!(InstanceName::new(bad), Err(ResourceError::Instance(bad.into())));
    }
    let digest = DigestFunction::Sha256.empty();
    for bad in ["", "a/b"] {
        let result = WriteName::new(InstanceName::default(), bad, Compressor::Identity, digest);
        assert_eq!(result, Err(ResourceError::UploadId(bad.into())));
    }
}

#[test]
fn errors_cut_long_names() {
    let long = "é".repeat(500);
    let error = long.parse::<ReadName>().unwrap_err().to_string();
    assert!(error.contains('…') && error.len() < 400, "{error}");
}
