//! What adapting made: directories, messages, and files that are derived from others.

use bytes::Bytes;
use reapi_proto::Digest;
use rustc_hash::{FxHashMap, FxHashSet};

/// Blobs that were made here, and which of them the store has.
#[derive(Default)]
pub(super) struct Products {
    all: FxHashMap<Digest, Product>,
    /// The files among them.
    files: FxHashSet<Digest>,
    /// What was stored since [`forget`](Self::forget).
    stored: Vec<Digest>,
}

struct Product {
    /// None once it is stored and forgotten.
    data: Option<Bytes>,
    stored: bool,
}

impl Products {
    pub(super) fn add(&mut self, digest: Digest, data: Bytes) {
        self.all.entry(digest).or_insert(Product { data: Some(data), stored: false });
    }

    pub(super) fn add_file(&mut self, digest: Digest) {
        self.files.insert(digest);
    }

    pub(super) fn remove(&mut self, digest: &Digest) {
        self.all.remove(digest);
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.all.contains_key(digest)
    }

    /// What was made here and is not in the store, as far as is known.
    pub(super) fn find_new(&self, digest: &Digest) -> Option<&Bytes> {
        self.all.get(digest).filter(|product| !product.stored)?.data.as_ref()
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&Bytes> {
        self.all.get(digest)?.data.as_ref()
    }

    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    pub(super) fn is_file(&self, digest: &Digest) -> bool {
        self.files.contains(digest)
    }

    /// The store has these.
    pub(super) fn stored(&mut self, digests: Vec<Digest>) {
        for digest in &digests {
            if let Some(product) = self.all.get_mut(digest) {
                product.stored = true;
            }
        }
        self.stored.extend(digests);
    }

    /// What is stored can be read from there.
    pub(super) fn forget(&mut self) {
        for digest in std::mem::take(&mut self.stored) {
            if let Some(product) = self.all.get_mut(&digest) {
                product.data = None;
            }
        }
    }
}

impl Extend<(Digest, Bytes)> for Products {
    fn extend<T: IntoIterator<Item = (Digest, Bytes)>>(&mut self, products: T) {
        products.into_iter().for_each(|(digest, data)| self.add(digest, data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reapi_proto::DigestFunction::Sha256;

    #[test]
    fn what_is_stored_is_known_without_its_bytes() {
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        let (made, other) = (Sha256.digest(&a), Sha256.digest(&b));
        let mut products = Products::default();
        products.extend([(made, a.clone()), (other, b.clone())]);
        products.stored(vec![made]);
        // Made once more, it is still stored.
        products.add(made, a.clone());
        assert_eq!((products.find_new(&made), products.find_new(&other)), (None, Some(&b)));
        assert_eq!(products.get(&made), Some(&a));
        products.forget();
        assert_eq!((products.get(&made), products.get(&other)), (None, Some(&b)));
        products.add(made, a);
        assert_eq!((products.contains(&made), products.find_new(&made)), (true, None));
    }
}
