//! What adapting made: directories, messages, and files that are derived from others.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use reapi_proto::{Blob, Digest};
use rustc_hash::{FxBuildHasher, FxHashSet};

/// Blobs that were made here, and which of them the store has.
#[derive(Default)]
pub(super) struct Products {
    /// By the digest; there are millions of them, and a key beside each would be the same once more.
    all: HashTable<Product>,
    /// The files among them.
    files: FxHashSet<Digest>,
    /// What was stored since [`forget`](Self::forget).
    stored: Vec<Digest>,
}

/// As far as is known of the store.
enum Product {
    New(Blob),
    /// An upload has it, which has not come to an end.
    Claimed(Blob),
    Stored(Blob),
    /// Stored; its bytes can be read from there.
    Forgotten(Digest),
}

impl Product {
    fn digest(&self) -> Digest {
        match self {
            Self::New(blob) | Self::Claimed(blob) | Self::Stored(blob) => blob.digest(),
            Self::Forgotten(digest) => *digest,
        }
    }

    fn blob(&self) -> Option<&Blob> {
        match self {
            Self::New(blob) | Self::Claimed(blob) | Self::Stored(blob) => Some(blob),
            Self::Forgotten(_) => None,
        }
    }

    /// Goes on to what the function makes of its blob.
    fn turn_into(&mut self, next: impl FnOnce(Blob) -> Self) {
        let digest = self.digest();
        match std::mem::replace(self, Self::Forgotten(digest)) {
            Self::New(blob) | Self::Claimed(blob) | Self::Stored(blob) => *self = next(blob),
            Self::Forgotten(_) => {}
        }
    }
}

fn hash(digest: &Digest) -> u64 {
    FxBuildHasher.hash_one(digest)
}

impl Products {
    /// What is there already stays as it is.
    pub(super) fn add(&mut self, blob: Blob) {
        let digest = blob.digest();
        let is_it = |product: &Product| product.digest() == digest;
        self.all.entry(hash(&digest), is_it, |product| hash(&product.digest())).or_insert(Product::New(blob));
    }

    pub(super) fn add_file(&mut self, digest: Digest) {
        self.files.insert(digest);
    }

    pub(super) fn remove(&mut self, digest: &Digest) {
        if let Ok(entry) = self.all.find_entry(hash(digest), |product| product.digest() == *digest) {
            entry.remove();
        }
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.find(digest).is_some()
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&Blob> {
        self.find(digest)?.blob()
    }

    fn find(&self, digest: &Digest) -> Option<&Product> {
        self.all.find(hash(digest), |product| product.digest() == *digest)
    }

    fn find_mut(&mut self, digest: &Digest) -> Option<&mut Product> {
        self.all.find_mut(hash(digest), |product| product.digest() == *digest)
    }

    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    pub(super) fn is_file(&self, digest: &Digest) -> bool {
        self.files.contains(digest)
    }

    /// What has to be uploaded and is not in any upload yet: it is in one from now on.
    pub(super) fn claim(&mut self, digest: &Digest) -> Option<Blob> {
        let product = self.find_mut(digest)?;
        let Product::New(blob) = product else { return None };
        let blob = blob.clone();
        product.turn_into(Product::Claimed);
        Some(blob)
    }

    /// The upload does not have these, or has failed.
    pub(super) fn unclaim(&mut self, digests: impl IntoIterator<Item = Digest>) {
        for digest in digests {
            if let Some(product @ Product::Claimed(_)) = self.find_mut(&digest) {
                product.turn_into(Product::New);
            }
        }
    }

    /// The store has these.
    pub(super) fn stored(&mut self, digests: Vec<Digest>) {
        for digest in &digests {
            if let Some(product) = self.find_mut(digest) {
                product.turn_into(Product::Stored);
            }
        }
        self.stored.extend(digests);
    }

    /// What is stored can be read from there.
    pub(super) fn forget(&mut self) {
        for digest in std::mem::take(&mut self.stored) {
            if let Some(product @ Product::Stored(_)) = self.find_mut(&digest) {
                *product = Product::Forgotten(digest);
            }
        }
    }
}

impl Extend<Blob> for Products {
    fn extend<T: IntoIterator<Item = Blob>>(&mut self, products: T) {
        products.into_iter().for_each(|blob| self.add(blob));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reapi_proto::DigestFunction::Sha256;

    #[test]
    fn what_is_stored_is_known_without_its_bytes() {
        let (a, b) = (Blob::new(Sha256, "a"), Blob::new(Sha256, "b"));
        let (made, other) = (a.digest(), b.digest());
        let mut products = Products::default();
        products.extend([a.clone(), b.clone()]);
        assert_eq!((products.claim(&made), products.claim(&made)), (Some(a.clone()), None));
        products.stored(vec![made]);
        // Made once more, it is still stored.
        products.add(a.clone());
        assert_eq!((products.claim(&made), products.get(&made)), (None, Some(&a)));
        products.forget();
        assert_eq!((products.get(&made), products.get(&other)), (None, Some(&b)));
        products.add(a);
        assert_eq!((products.contains(&made), products.claim(&made)), (true, None));
        assert_eq!(products.claim(&other), Some(b));
    }

    #[test]
    fn what_an_upload_failed_to_store_is_claimed_again() {
        let blob = Blob::new(Sha256, "a");
        let mut products = Products::default();
        products.add(blob.clone());
        assert_eq!(products.claim(&blob.digest()), Some(blob.clone()));
        products.unclaim([blob.digest()]);
        assert_eq!(products.claim(&blob.digest()), Some(blob.clone()));
        products.stored(vec![blob.digest()]);
        // It comes too late to matter.
        products.unclaim([blob.digest()]);
        assert_eq!((products.claim(&blob.digest()), products.get(&blob.digest())), (None, Some(&blob)));
    }
}
