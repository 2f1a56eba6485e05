//! What a connection waits for. Nearly always nothing, and then it takes no memory.

use std::task::Poll;

use futures::{
    StreamExt,
    future::{BoxFuture, poll_fn},
    stream::FuturesUnordered,
};

pub(super) struct Awaited<T>(Option<Box<FuturesUnordered<BoxFuture<'static, T>>>>);

impl<T> Awaited<T> {
    pub(super) fn nothing() -> Awaited<T> {
        Awaited(None)
    }

    pub(super) fn push(&mut self, future: BoxFuture<'static, T>) {
        self.0.get_or_insert_default().push(future);
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |some| some.len())
    }

    /// Never, if there is nothing.
    pub(super) async fn next(&mut self) -> T {
        poll_fn(|context| {
            let Some(some) = &mut self.0 else {
                return Poll::Pending;
            };
            match some.poll_next_unpin(context) {
                Poll::Ready(Some(result)) => {
                    if some.is_empty() {
                        self.0 = None;
                    }
                    Poll::Ready(result)
                }
                _ => Poll::Pending,
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn each_result_comes_once_and_then_nothing_is_left() {
        let mut awaited = Awaited::nothing();
        assert_eq!(awaited.next().now_or_never(), None);
        for number in 0..3 {
            awaited.push(std::future::ready(number).boxed());
        }
        awaited.push(std::future::pending().boxed());
        assert_eq!(awaited.len(), 4);
        let mut results: Vec<i32> = (0..3)
            .filter_map(|_| awaited.next().now_or_never())
            .collect();
        results.sort_unstable();
        assert_eq!((results, awaited.len()), (vec![0, 1, 2], 1));
        assert_eq!(awaited.next().now_or_never(), None);

        let mut awaited = Awaited::nothing();
        awaited.push(std::future::ready(1).boxed());
        assert_eq!(awaited.next().now_or_never(), Some(1));
        assert!(awaited.0.is_none());
    }
}
