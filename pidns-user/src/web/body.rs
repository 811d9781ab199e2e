//! The body of an answer. It goes to hyper in small parts, so that it is clear how much of it the client has not read.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::connections::Connection;

/// hyper takes the next part when less than its buffer, of [`super::Limits::header_bytes`], waits to be written.
const PART: usize = 8 * 1024;

/// The bytes that are left, and the connection that is notified when there are none.
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
