//! Our types against independently written ones: `bazel-remote-apis`, which
//! is generated from the published files.
//!
//! Bytes that hold one field, at every number and in several types, are
//! decoded by both. Whatever our type recognises, the other must recognise as
//! the same: `Debug` shows the names of fields, types and enum values.

#![allow(clippy::panic, reason = "tests fail by panicking")]

use std::fmt::Debug;

use bazel_remote_apis::build::bazel::remote::{asset::v1 as their_asset, execution::v2 as theirs};
use bazel_remote_apis::google::{bytestream as their_bytestream, longrunning as their_longrunning, rpc as their_rpc};
use prost::Message;
use reapi_proto::{asset, bytestream, longrunning, rpc, v2};

/// How deep messages in messages are followed.
const DEPTH: usize = 4;
const MAX_FIELD: u32 = 20;

fn field(number: u32, wire_type: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | wire_type), &mut out);
    if wire_type == 2 {
        prost::encoding::encode_varint(payload.len() as u64, &mut out);
    }
    [&out, payload].concat()
}

/// What `Debug` shows of a message, apart from absent fields and the order of
/// declaration: `name: value` and `name: Type` in alphabetical order.
fn shown<T: Message + Default + Debug>(bytes: &[u8]) -> Option<Vec<String>> {
    let text = format!("{:?}", T::decode(bytes).ok()?);
    // The same values in other Rust types.
    let text = text
        .replace("UInt32Value { value: 0 }", "0")
        .replace("UInt32Value { value: 1 }", "1")
        .replace("b\"x\"", "[120]")
        .replace("b\"\\x01\"", "[1]");
    let absent = |part: &str| {
        ["None", "[]", "b\"\"", "\"\"", "0", "false", "Unknown"].iter().any(|v| part.ends_with(&format!(": {v}")))
    };
    let parts = text.split([',', '{', '}']).map(str::trim).filter(|part| !part.is_empty() && !absent(part));
    let mut parts: Vec<_> = parts.map(str::to_owned).collect();
    parts.sort();
    Some(parts)
}

/// Compares the types on one field inside of the fields `path`; returns the number of fields recognised.
fn probe<Ours, Theirs>(path: &[u32]) -> usize
where
    Ours: Message + Default + Debug,
    Theirs: Message + Default + Debug,
{
    let wrap = |leaf: Vec<u8>| path.iter().rev().fold(leaf, |inner, number| field(*number, 2, &inner));
    let nothing = shown::<Ours>(&wrap(Vec::new()));
    let mut recognised = 0;
    for number in 1..=MAX_FIELD {
        let check = |leaf: Vec<u8>| {
            let bytes = wrap(leaf);
            let ours = shown::<Ours>(&bytes);
            let known = ours.is_some() && ours != nothing;
            if known {
                assert_eq!(ours, shown::<Theirs>(&bytes), "{bytes:?}");
            }
            known
        };
        let leaves = [field(number, 0, &[1]), field(number, 2, b"x"), field(number, 2, b"\x01")];
        let known = leaves.map(check).contains(&true);
        let nested = check(field(number, 2, b""));
        recognised += usize::from(known || nested);
        // These bytes are a string, and numbers, but no message.
        let is_message = shown::<Ours>(&wrap(field(number, 2, b"\x01"))).is_none();
        if nested && is_message && path.len() < DEPTH {
            recognised += probe::<Ours, Theirs>(&[path, &[number]].concat());
        }
    }
    recognised
}

macro_rules! same {
    ($($ours:ident = $theirs:ident: $($message:ident)*;)*) => {
        $($(
            let recognised = probe::<$ours::$message, $theirs::$message>(&[]);
            let empty = format!("{:?}", $ours::$message::default()) == stringify!($message);
            assert!(empty || recognised > 0, stringify!($message));
        )*)*
    };
}

#[test]
fn both_read_the_same_from_the_same_bytes() {
    same! {
        v2 = theirs:
            Action Command Platform Directory FileNode DirectoryNode SymlinkNode NodeProperties NodeProperty Digest
            ActionResult OutputFile OutputDirectory OutputSymlink ExecutedActionMetadata Tree ExecutionPolicy
            ResultsCachePolicy ExecuteRequest ExecuteResponse ExecutionStage ExecuteOperationMetadata LogFile
            WaitExecutionRequest GetActionResultRequest UpdateActionResultRequest FindMissingBlobsRequest
            FindMissingBlobsResponse BatchUpdateBlobsRequest BatchUpdateBlobsResponse BatchReadBlobsRequest
            BatchReadBlobsResponse GetTreeRequest GetTreeResponse GetCapabilitiesRequest ServerCapabilities
            CacheCapabilities ExecutionCapabilities ActionCacheUpdateCapabilities PriorityCapabilities
            RequestMetadata ToolDetails;
        asset = their_asset:
            Qualifier FetchBlobRequest FetchBlobResponse FetchDirectoryRequest FetchDirectoryResponse
            PushBlobRequest PushBlobResponse PushDirectoryRequest PushDirectoryResponse;
        bytestream = their_bytestream:
            ReadRequest ReadResponse WriteRequest WriteResponse QueryWriteStatusRequest QueryWriteStatusResponse;
        longrunning = their_longrunning:
            Operation GetOperationRequest ListOperationsRequest ListOperationsResponse CancelOperationRequest
            DeleteOperationRequest;
        rpc = their_rpc: Status;
    }
}
