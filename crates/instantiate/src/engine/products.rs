//! What adapting made: directories, messages, and files that are derived from others.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use reapi_proto::{Blob, Digest};
use rustc_hash::{FxBuildHasher, FxHashSet};

/// Blobs that were made here, and which of them the store has.
///
/// There are millions of them. What is made together lies together and is used together; the table of digests says no
/// more than where, so that it is small.
#[derive(Default)]
pub(super) struct Products {
    all: Vec<Product>,
    by_digest: HashTable<ProductId>,
    /// The files among them.
    files: FxHashSet<Digest>,
    /// What was stored since [`forget`](Self::forget).
    stored: Vec<ProductId>,
}

/// A product by its row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ProductId(u32);

/// As far as is known of the store.
enum Product {
    New(Blob),
    /// An upload has it, which has not come to an end.
    Claimed(Blob),
    Stored(Blob),
    /// Stored, so that its bytes can be read from there; or removed, so that no digest leads here.
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

    fn forget(&mut self) {
        *self = Self::Forgotten(self.digest());
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

/// What a digest is found by in a table of rows.
pub(super) fn hash(digest: &Digest) -> u64 {
    FxBuildHasher.hash_one(digest)
}

impl Products {
    /// What is there already stays as it is.
    pub(super) fn add(&mut self, blob: Blob) {
        let Self { all, by_digest, .. } = self;
        let digest = blob.digest();
        let is_it = |id: &ProductId| all[id.0 as usize].digest() == digest;
        let entry = by_digest.entry(hash(&digest), is_it, |id| hash(&all[id.0 as usize].digest()));
        // More of them would not fit into memory.
        let next = u32::try_from(all.len()).map(ProductId);
        if let (Entry::Vacant(entry), Ok(next)) = (entry, next) {
            entry.insert(next);
            all.push(Product::New(blob));
        }
    }

    pub(super) fn add_file(&mut self, digest: Digest) {
        self.files.insert(digest);
    }

    /// Forgets it altogether.
    pub(super) fn remove(&mut self, digest: &Digest) {
        let Self { all, by_digest, .. } = self;
        let is_it = |id: &ProductId| all[id.0 as usize].digest() == *digest;
        let Ok(entry) = by_digest.find_entry(hash(digest), is_it) else { return };
        let (id, _) = entry.remove();
        all[id.0 as usize].forget();
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.find(digest).is_some()
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&Blob> {
        self.all[self.find(digest)?.0 as usize].blob()
    }

    fn find(&self, digest: &Digest) -> Option<ProductId> {
        self.by_digest.find(hash(digest), |id| self.all[id.0 as usize].digest() == *digest).copied()
    }

    pub(super) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    pub(super) fn is_file(&self, digest: &Digest) -> bool {
        self.files.contains(digest)
    }

    /// What has to be uploaded and is not in any upload yet: it is in one from now on.
    pub(super) fn claim(&mut self, digest: &Digest) -> Option<(ProductId, Blob)> {
        let id = self.find(digest)?;
        let product = &mut self.all[id.0 as usize];
        let Product::New(blob) = product else { return None };
        let blob = blob.clone();
        product.turn_into(Product::Claimed);
        Some((id, blob))
    }

    /// The upload does not have these, or has failed.
    pub(super) fn unclaim(&mut self, products: impl IntoIterator<Item = ProductId>) {
        for id in products {
            let product = &mut self.all[id.0 as usize];
            if matches!(product, Product::Claimed(_)) {
                product.turn_into(Product::New);
            }
        }
    }

    /// The store has these.
    pub(super) fn stored(&mut self, products: Vec<ProductId>) {
        for id in &products {
            let product = &mut self.all[id.0 as usize];
            if matches!(product, Product::Claimed(_)) {
                product.turn_into(Product::Stored);
            }
        }
        self.stored.extend(products);
    }

    /// What is stored can be read from there.
    pub(super) fn forget(&mut self) {
        for id in std::mem::take(&mut self.stored) {
            let product = &mut self.all[id.0 as usize];
            if matches!(product, Product::Stored(_)) {
                product.forget();
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

    /// Claims what has to be there to be claimed.
    fn claim(products: &mut Products, blob: &Blob) -> ProductId {
        let (id, claimed) = products.claim(&blob.digest()).unwrap();
        assert_eq!(claimed, *blob);
        id
    }

    #[test]
    fn what_is_stored_is_known_without_its_bytes() {
        let (a, b) = (Blob::new(Sha256, "a"), Blob::new(Sha256, "b"));
        let (made, other) = (a.digest(), b.digest());
        let mut products = Products::default();
        products.extend([a.clone(), b.clone()]);
        let id = claim(&mut products, &a);
        assert_eq!(products.claim(&made), None);
        products.stored(vec![id]);
        // Made once more, it is still stored.
        products.add(a.clone());
        assert_eq!((products.claim(&made), products.get(&made)), (None, Some(&a)));
        products.forget();
        assert_eq!((products.get(&made), products.get(&other)), (None, Some(&b)));
        products.add(a);
        assert_eq!((products.contains(&made), products.claim(&made)), (true, None));
        claim(&mut products, &b);
    }

    #[test]
    fn what_an_upload_failed_to_store_is_claimed_again() {
        let blob = Blob::new(Sha256, "a");
        let mut products = Products::default();
        products.add(blob.clone());
        let id = claim(&mut products, &blob);
        products.unclaim([id]);
        assert_eq!(claim(&mut products, &blob), id);
        products.stored(vec![id]);
        // It comes too late to matter.
        products.unclaim([id]);
        assert_eq!((products.claim(&blob.digest()), products.get(&blob.digest())), (None, Some(&blob)));
    }

    #[test]
    fn what_is_removed_is_made_anew() {
        let (a, b) = (Blob::new(Sha256, "a"), Blob::new(Sha256, "b"));
        let mut products = Products::default();
        products.extend([a.clone(), b.clone()]);
        let first = claim(&mut products, &a);
        products.remove(&a.digest());
        assert!(!products.contains(&a.digest()));
        // Its upload ends later, and says nothing of what is made in the meantime.
        products.add(a.clone());
        products.stored(vec![first]);
        assert_ne!(claim(&mut products, &a), first);
        let id = claim(&mut products, &b);
        products.stored(vec![id]);
        products.remove(&b.digest());
        products.forget();
        products.add(b.clone());
        assert_ne!(claim(&mut products, &b), id);
    }
}
