//! What files hold that neither sources nor actions explain.

use bytes::Bytes;
use cas_client::{BlobStore, Result};
use overlay::derive::{Content, Contents, Deriver};
use reapi_proto::{Digest, DigestFunction};

/// Files larger than this are not looked into; they count as made of everything.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Bytes that are read of objects, to see what a library is made of.
const MAX_OBJECT_BYTES: u64 = 512 << 20;

/// Reads the files that tell where local files come from. One that is not
/// at hand is left out.
pub(crate) async fn read_contents(store: &dyn BlobStore, deriver: &Deriver) -> Result<Contents> {
    let mut contents = Contents::default();
    let mut files = deriver.local_files();
    files.retain(|digest| digest.size_bytes() <= MAX_FILE_BYTES);
    read_into(store, &files, &mut contents).await?;
    let names_sources = |content: &Content| matches!(content, Content::Binary { sources: Some(_) });
    if contents.values().any(names_sources) {
        let mut left = MAX_OBJECT_BYTES;
        let mut objects = deriver.objects_made();
        objects.retain(|digest| {
            let fits = !contents.contains_key(digest) && digest.size_bytes() <= left;
            left -= if fits { digest.size_bytes() } else { 0 };
            fits
        });
        read_into(store, &objects, &mut contents).await?;
    }
    Ok(contents)
}

async fn read_into(store: &dyn BlobStore, files: &[Digest], contents: &mut Contents) -> Result<()> {
    // One at a time in memory beside the batch that it came in.
    const BATCH_BYTES: u64 = 64 << 20;
    let mut rest = files;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|digest| {
            bytes += digest.size_bytes();
            bytes <= BATCH_BYTES
        });
        let (batch, later) = rest.split_at(fits.count().max(1));
        rest = later;
        for (digest, answer) in store.read_blobs(batch).await? {
            match answer {
                Ok(data) => {
                    contents.insert(digest, content(store.digest_function(), &data));
                }
                Err(error) => tracing::debug!(%digest, %error, "a local file cannot be read"),
            }
        }
    }
    Ok(())
}

fn content(function: DigestFunction, data: &Bytes) -> Content {
    if let Ok(archive) = archive::Archive::parse(data) {
        let members = archive.members().map(|(name, data)| (name.to_vec(), function.digest(data)));
        return Content::Archive(members.collect());
    }
    if data.starts_with(b"\x7fELF") || data.starts_with(b"!<arch>") {
        return Content::Binary { sources: archive::source_names(data) };
    }
    Content::Text
}
