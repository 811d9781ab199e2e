//! The body of an answer. hyper gets it in small parts, so that we know how much the client has not read.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::connections::Connection;

/// Size of a part. hyper takes the next one when its buffer ([`super::Limits::header_bytes`]) has room.
const PART: usize = 8 * 1024;

/// The remaining bytes, and the connection to notify when there are none.
#[derive(Debug)]
pub(super) struct AnswerBody {
    rest: Bytes,
    connection: Arc<Connection>,
}

impl AnswerBody {
    pub(super) fn new(bytes: Bytes, connection: Arc<Connection>) -> Self {
        Self { rest: bytes, connection }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(PART);
        let part = self.rest.split_to(length);
        Poll::Ready((!part.is_empty()).then(|| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.connection.answer_is_handed_over();
    }
}
