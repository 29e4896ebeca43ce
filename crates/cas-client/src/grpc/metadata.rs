//! Who is calling, as a header on every call (Remote Execution API, `RequestMetadata`).

use prost::Message as _;
use reapi_proto::{Digest, v2};
use tonic::Request;
use tonic::metadata::{BinaryMetadataKey, BinaryMetadataValue, MetadataMap};

use super::GrpcConfig;

/// The header's name; gRPC encodes values of headers ending in `-bin` itself.
const REQUEST_METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// Longest identifier sent, in characters. Servers commonly refuse more than 8 KiB of headers in all.
const MAX_FIELD_CHARS: usize = 256;

/// The caller's identity, encoded once for calls that concern no particular action.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    message: v2::RequestMetadata,
    encoded: BinaryMetadataValue,
}

impl Caller {
    pub(super) fn new(config: &GrpcConfig) -> Self {
        let message = v2::RequestMetadata {
            tool_details: Some(v2::ToolDetails {
                tool_name: clip(&config.tool_name),
                tool_version: clip(&config.tool_version),
            }),
            tool_invocation_id: clip(&config.invocation_id),
            correlated_invocations_id: clip(&config.correlated_invocations_id),
            ..v2::RequestMetadata::default()
        };
        let encoded = BinaryMetadataValue::from_bytes(&message.encode_to_vec());
        Self { message, encoded }
    }

    /// Adds the header, naming the action that the call is for.
    pub(super) fn sign<T>(&self, request: &mut Request<T>, action: Option<&Digest>) {
        let value = match action {
            None => self.encoded.clone(),
            Some(action) => {
                let message = v2::RequestMetadata { action_id: action.to_string(), ..self.message.clone() };
                BinaryMetadataValue::from_bytes(&message.encode_to_vec())
            }
        };
        insert(request.metadata_mut(), value);
    }
}

fn insert(headers: &mut MetadataMap, value: BinaryMetadataValue) {
    headers.insert_bin(BinaryMetadataKey::from_static(REQUEST_METADATA), value);
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_FIELD_CHARS).collect()
}
