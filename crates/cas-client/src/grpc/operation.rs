//! What an `Operation` of an execution says. Pure: messages in, events out.

use std::fmt;

use prost::{Message as _, Name as _};
use reapi_proto::longrunning::{Operation, operation};
use reapi_proto::rpc;
use reapi_proto::v2::{ActionResult, ExecuteOperationMetadata, ExecuteResponse, execution_stage};
use tonic::Code;

use super::status::{inner_failure, printable, type_name};
use crate::retry::Failure;
use crate::{Error, ErrorKind, ExecutionOutcome, ExecutionStage};

/// The method that errors of an execution name, whichever call delivered them.
pub(super) const METHOD: &str = "Execute";

/// The source of an execution's [`Error`] when the service delivered a result
/// along with the failure: logs and outputs of an action that timed out, say.
#[derive(Clone, PartialEq, Debug)]
pub struct FailedExecution {
    /// What there is of the result. Not to be cached.
    pub result: ActionResult,
    /// What the service adds for people; may be empty.
    pub message: String,
}

impl fmt::Display for FailedExecution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partial result with exit code {}", self.result.exit_code)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", printable(&self.message)) }
    }
}

impl std::error::Error for FailedExecution {}

/// What one message of the stream says.
#[derive(Debug)]
pub(super) struct Event {
    /// The operation's name; empty when not said.
    pub(super) name: String,
    pub(super) stage: Option<ExecutionStage>,
    pub(super) end: Option<Result<ExecutionOutcome, Failure>>,
}

/// Reads one message of the stream.
pub(super) fn read(operation: Operation) -> Event {
    let Operation { name, metadata, done, result } = operation;
    let stage = metadata
        .filter(|any| type_name(any) == ExecuteOperationMetadata::full_name())
        .and_then(|any| ExecuteOperationMetadata::decode(&any.value[..]).ok())
        .map(|metadata| stage(metadata.stage));
    Event { name, stage, end: done.then(|| end(result)) }
}

fn stage(wire: i32) -> ExecutionStage {
    match execution_stage::Value::try_from(wire) {
        Ok(execution_stage::Value::CacheCheck) => ExecutionStage::CacheCheck,
        Ok(execution_stage::Value::Queued) => ExecutionStage::Queued,
        Ok(execution_stage::Value::Executing) => ExecutionStage::Executing,
        Ok(execution_stage::Value::Completed) => ExecutionStage::Completed,
        Ok(execution_stage::Value::Unknown) | Err(_) => ExecutionStage::Unknown,
    }
}

/// How a finished operation ended. The specification has all failures in
/// `ExecuteResponse.status`, but `Operation.error` occurs.
fn end(result: Option<operation::Result>) -> Result<ExecutionOutcome, Failure> {
    let broken = |reason: String| Err(Failure::fatal(Error::new(ErrorKind::Protocol, METHOD, reason)));
    let any = match result {
        Some(operation::Result::Response(any)) => any,
        Some(operation::Result::Error(status)) if status.code == 0 => {
            return broken("the operation failed with status OK".to_owned());
        }
        Some(operation::Result::Error(status)) => return Err(execution_failure(&status)),
        None => return broken("the operation is done without a result".to_owned()),
    };
    if type_name(&any) != ExecuteResponse::full_name() {
        return broken(format!("the operation's response is a {:?}", printable(type_name(&any))));
    }
    let response = match ExecuteResponse::decode(&any.value[..]) {
        Ok(response) => response,
        Err(e) => return broken(format!("the operation's response is malformed: {e}")),
    };
    let message = response.message;
    match (response.status.filter(|s| s.code != 0), response.result) {
        (None, Some(result)) => Ok(ExecutionOutcome { result, cached: response.cached_result, message }),
        (None, None) => broken("the execution succeeded without a result".to_owned()),
        (Some(status), Some(result)) => {
            Err(execution_failure(&status).map(|e| e.caused_by(FailedExecution { result, message })))
        }
        (Some(status), None) => Err(execution_failure(&status)),
    }
}

/// What the failure of an execution means. Some codes differ from what they
/// mean for a call (Remote Execution API, `Execution.Execute`).
fn execution_failure(status: &rpc::Status) -> Failure {
    let failure = inner_failure(METHOD, status);
    let reason = failure.error.reason().to_owned();
    match Code::from_i32(status.code) {
        Code::DeadlineExceeded => Failure::fatal(Error::new(
            ErrorKind::LimitExceeded,
            METHOD,
            format!("the action ran longer than its timeout: {reason}"),
        )),
        Code::Cancelled => Failure::fatal(Error::new(ErrorKind::Cancelled, METHOD, reason)),
        Code::NotFound => absent(failure),
        _ => failure,
    }
}

/// NOT_FOUND to `Execute` is outside of the specification, but buildbox-casd
/// answers so when Action or Command are absent. Which one, only the text says.
pub(super) fn absent(failure: Failure) -> Failure {
    failure.map(|error| {
        let found = Error::new(ErrorKind::MissingInputs, METHOD, error.reason());
        found.with_digests(error.digests().iter().copied())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost_types::Any;
    use reapi_proto::v2;

    fn any<T: prost::Name>(message: &T) -> Any {
        Any { type_url: format!("type.googleapis.com/{}", T::full_name()), value: message.encode_to_vec() }
    }

    fn done(response: &ExecuteResponse) -> Event {
        let result = Some(operation::Result::Response(any(response)));
        read(Operation { name: "x".into(), done: true, result, ..Default::default() })
    }

    fn failed(code: Code, result: Option<ActionResult>) -> Failure {
        let status = rpc::Status { code: code as i32, message: "why".into(), details: vec![] };
        done(&ExecuteResponse { status: Some(status), result, ..Default::default() }).end.unwrap().unwrap_err()
    }

    #[test]
    fn a_result_is_an_outcome_whatever_its_exit_code() {
        let result = ActionResult { exit_code: 3, ..Default::default() };
        let response = ExecuteResponse { result: Some(result.clone()), cached_result: true, ..Default::default() };
        let outcome = done(&response).end.unwrap().unwrap();
        assert_eq!(outcome, ExecutionOutcome { result, cached: true, message: String::new() });
    }

    #[test]
    fn failures_carry_the_partial_result() {
        let result = ActionResult { exit_code: -1, ..Default::default() };
        let failure = failed(Code::DeadlineExceeded, Some(result.clone()));
        assert_eq!(failure.error.kind(), ErrorKind::LimitExceeded);
        assert!(failure.is_fatal());
        let source = std::error::Error::source(&failure.error).unwrap().downcast_ref::<FailedExecution>().unwrap();
        assert_eq!(source.result, result);
    }

    #[test]
    fn codes_mean_what_executions_mean_by_them() {
        for (code, kind, fatal) in [
            (Code::Cancelled, ErrorKind::Cancelled, true),
            (Code::Unavailable, ErrorKind::Unavailable, false),
            (Code::Internal, ErrorKind::Unavailable, false),
            (Code::InvalidArgument, ErrorKind::Invalid, true),
            (Code::FailedPrecondition, ErrorKind::MissingInputs, true),
            (Code::NotFound, ErrorKind::MissingInputs, true),
        ] {
            let failure = failed(code, None);
            assert_eq!((failure.error.kind(), failure.is_fatal()), (kind, fatal), "{code:?}");
        }
    }

    #[test]
    fn broken_endings_are_protocol_errors() {
        let kind = |result| {
            let operation = Operation { done: true, result, ..Default::default() };
            read(operation).end.unwrap().unwrap_err().error.kind()
        };
        assert_eq!(kind(None), ErrorKind::Protocol);
        assert_eq!(kind(Some(operation::Result::Error(rpc::Status::default()))), ErrorKind::Protocol);
        assert_eq!(kind(Some(operation::Result::Response(any(&v2::Digest::default())))), ErrorKind::Protocol);
        let garbage = Any { value: vec![0xff], ..any(&ExecuteResponse::default()) };
        assert_eq!(kind(Some(operation::Result::Response(garbage))), ErrorKind::Protocol);
        let empty = any(&ExecuteResponse::default());
        assert_eq!(kind(Some(operation::Result::Response(empty))), ErrorKind::Protocol);
    }

    #[test]
    fn stages_are_read_from_the_metadata() {
        let metadata = |metadata| read(Operation { metadata: Some(metadata), ..Default::default() }).stage;
        let stage = |stage| metadata(any(&ExecuteOperationMetadata { stage, ..Default::default() }));
        assert_eq!(stage(2), Some(ExecutionStage::Queued));
        assert_eq!(stage(99), Some(ExecutionStage::Unknown));
        assert_eq!(metadata(any(&v2::Digest::default())), None);
    }

    proptest! {
        #[test]
        fn no_operation_panics(bytes: Vec<u8>) {
            if let Ok(operation) = Operation::decode(&bytes[..]) {
                let _ = read(operation);
            }
        }

        #[test]
        fn no_field_panics(
            name: String, done: bool, failed: bool, code: i32,
            url in "(type.googleapis.com/build.bazel.remote.execution.v2.Execute(Response|OperationMetadata)|\\PC*)", value: Vec<u8>,
        ) {
            let any = Any { type_url: url, value };
            let status = rpc::Status { code, message: name.clone(), details: vec![any.clone()] };
            let result = if failed { operation::Result::Error(status) } else { operation::Result::Response(any.clone()) };
            let event = read(Operation { name, metadata: Some(any), done, result: Some(result) });
            prop_assert_eq!(event.end.is_some(), done);
        }
    }
}
