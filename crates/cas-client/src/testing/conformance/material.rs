//! What the checks store: never the same twice.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use prost::Message;
use reapi_proto::raw::{Node, encode_directory};
use reapi_proto::v2::{Action, Command, Platform, command, platform};
use reapi_proto::{Digest, DigestFunction};

use super::report::Failed;
use crate::{Blob, BlobStore, BlobStoreExt, Chunks, ErrorKind, Result};

/// Makes content that no other run makes.
pub(super) struct Material {
    function: DigestFunction,
    nonce: uuid::Uuid,
}

impl Material {
    pub(super) fn new(function: DigestFunction) -> Self {
        Self { function, nonce: uuid::Uuid::new_v4() }
    }

    /// A small blob; the same for the same name.
    pub(super) fn blob(&self, name: &str) -> Blob {
        Blob::new(self.function, format!("{name} of conformance run {}\n", self.nonce))
    }

    /// A blob of exactly this size, incompressible.
    pub(super) fn sized(&self, name: &str, size_bytes: usize) -> Blob {
        let head = self.blob(name);
        let mut data = vec![0; size_bytes];
        let mut random = fastrand::Rng::with_seed(self.nonce.as_u64_pair().0);
        random.fill(&mut data);
        let head = &head.data()[..head.data().len().min(size_bytes)];
        data[..head.len()].copy_from_slice(head);
        Blob::new(self.function, data)
    }

    pub(super) fn message(&self, message: &impl Message) -> Blob {
        Blob::new(self.function, message.encode_to_vec())
    }

    /// An Action and its Command, not stored yet.
    pub(super) fn action(&self, name: &str, command: &Command, input_root: Digest, platform: &Platform) -> Job {
        let command = self.message(command);
        let platform = (!platform.properties.is_empty()).then(|| platform.clone());
        let action = Action {
            command_digest: Some(command.digest().into()),
            input_root_digest: Some(input_root.into()),
            salt: self.blob(name).into_data(),
            platform,
            ..Action::default()
        };
        Job { action: self.message(&action), command, message: action }
    }

    /// An Action that nobody will execute.
    pub(super) fn idle_action(&self, name: &str) -> Job {
        let command = Command { arguments: vec!["never-executed".into()], ..Command::default() };
        self.action(name, &command, self.function.empty(), &Platform::default())
    }

    /// A directory of one file, as a blob.
    pub(super) fn directory(&self, name: &'static str, node: Node) -> Result<Blob, Failed> {
        let encoded = encode_directory([(Bytes::from_static(name.as_bytes()), node)]);
        encoded.map(|bytes| Blob::new(self.function, bytes)).map_err(|e| Failed::new(e.to_string()))
    }
}

/// An Action with its Command.
pub(super) struct Job {
    pub(super) action: Blob,
    pub(super) command: Blob,
    pub(super) message: Action,
}

impl Job {
    pub(super) async fn upload(&self, store: &dyn BlobStore) -> Result<Digest> {
        store.upload_missing(&[self.action.clone(), self.command.clone()]).await?;
        Ok(self.action.digest())
    }
}

/// A Platform of these properties, sorted as the specification demands.
pub(super) fn platform(properties: &[(String, String)]) -> Platform {
    let mut properties: Vec<_> = properties
        .iter()
        .map(|(name, value)| platform::Property { name: name.clone(), value: value.clone() })
        .collect();
    properties.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
    Platform { properties }
}

/// The variables of a Command.
pub(super) fn environment(variables: &[(String, String)]) -> Vec<command::EnvironmentVariable> {
    let mut variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| command::EnvironmentVariable { name: name.clone(), value: value.clone() })
        .collect();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    variables
}

/// `data` as a stream of pieces of at most `piece` bytes, every other one empty.
pub(super) fn chunks(data: &Bytes, piece: usize) -> Chunks {
    let mut rest = data.clone();
    let pieces = std::iter::from_fn(move || {
        (!rest.is_empty()).then(|| [Ok(rest.split_to(piece.min(rest.len()))), Ok(Bytes::new())])
    });
    stream::iter(pieces.flatten()).boxed()
}

/// Reads a stream to its end.
pub(super) async fn drain(store: &dyn BlobStore, digest: &Digest) -> Result<Vec<u8>> {
    let pieces = store.open_blob(digest).await?;
    pieces
        .try_fold(Vec::new(), async |mut all, piece| {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

/// Fails unless `outcome` is an error of one of these kinds.
pub(super) fn refused<T>(what: &str, outcome: Result<T>, kinds: &[ErrorKind]) -> Result<(), Failed> {
    match outcome {
        Ok(_) => Err(Failed::new(format!("{what}: accepted, expected one of {kinds:?}"))),
        Err(error) if kinds.contains(&error.kind()) => Ok(()),
        Err(error) => Err(Failed::new(format!("{what}: expected one of {kinds:?}, found {error}"))),
    }
}
