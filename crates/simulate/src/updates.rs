//! What a service says of an execution.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cas_client::{ExecutionOutcome, ExecutionStage, ExecutionUpdate, Result};
use futures_util::Stream;
use pin_project_lite::pin_project;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::{Instant, Sleep, sleep};

use crate::service::{Operation, Service};

pin_project! {
    /// The updates on an operation. The first and the last take half a round trip to whoever reads them.
    pub(crate) struct Updates {
        service: Service,
        operation: Operation,
        half: Duration,
        next: Next,
        #[pin]
        on_the_way: Sleep,
    }
}

/// What comes next.
enum Next {
    Accepted,
    Stage,
    Executing,
    End,
    Outcome,
    Nothing,
}

impl Updates {
    pub(crate) fn new(service: Service, operation: Operation, half: Duration) -> Self {
        Self { service, operation, half, next: Next::Accepted, on_the_way: sleep(half) }
    }
}

impl Stream for Updates {
    type Item = Result<ExecutionUpdate>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        let Operation { started, done, .. } = &mut *this.operation;
        let executing = ExecutionUpdate::Stage(ExecutionStage::Executing);
        let (update, next) = loop {
            match this.next {
                Next::Accepted => {
                    ready!(this.on_the_way.as_mut().poll(context));
                    let operation = this.operation.to_string();
                    break (Some(ExecutionUpdate::Accepted { operation }), Next::Stage);
                }
                Next::Stage => match started.as_mut().map(oneshot::Receiver::try_recv) {
                    None | Some(Ok(())) => break (Some(executing), Next::End),
                    Some(Err(TryRecvError::Empty)) => {
                        break (Some(ExecutionUpdate::Stage(ExecutionStage::Queued)), Next::Executing);
                    }
                    Some(Err(TryRecvError::Closed)) => break (None, Next::Nothing),
                },
                Next::Executing => {
                    if let Some(started) = started
                        && ready!(Pin::new(started).poll(context)).is_err()
                    {
                        break (None, Next::Nothing);
                    }
                    break (Some(executing), Next::End);
                }
                Next::End => {
                    if let Some(done) = done
                        && ready!(Pin::new(done).poll(context)).is_err()
                    {
                        break (None, Next::Nothing);
                    }
                    this.on_the_way.as_mut().reset(Instant::now() + *this.half);
                    *this.next = Next::Outcome;
                }
                Next::Outcome => {
                    ready!(this.on_the_way.as_mut().poll(context));
                    let result = this.service.result(this.operation.job);
                    let outcome = ExecutionOutcome { result, cached: false, message: String::new() };
                    break (Some(ExecutionUpdate::Done(Box::new(outcome))), Next::Nothing);
                }
                Next::Nothing => break (None, Next::Nothing),
            }
        };
        *this.next = next;
        Poll::Ready(update.map(Ok))
    }
}
