//! The outbox by itself, over sockets that take as little as they like.

use std::io::IoSlice;

use futures::FutureExt;

use super::*;

/// A socket that takes so many bytes, and remembers them.
#[derive(Default)]
struct Pipe {
    state: Mutex<(usize, Vec<u8>, usize)>,
}

impl Pipe {
    fn with(room: usize) -> Arc<Pipe> {
        let pipe = Pipe::default();
        pipe.drain(room);
        Arc::new(pipe)
    }

    fn drain(&self, room: usize) {
        self.state.lock().unwrap().0 = room;
    }

    fn taken(&self) -> Vec<u8> {
        self.state.lock().unwrap().1.clone()
    }

    fn calls(&self) -> usize {
        self.state.lock().unwrap().2
    }
}

impl Wire for Pipe {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let (room, taken, calls) = &mut *self.state.lock().unwrap();
        *calls += 1;
        if *room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let some = all.len().min(*room);
        taken.extend_from_slice(&all[..some]);
        *room -= some;
        Ok(some)
    }
}

fn frame(length: usize) -> Frame {
    Frame::text("x".repeat(length))
}

fn outbox(frames: usize, bytes: usize) -> Arc<Outbox> {
    Outbox::new(Limits { frames, bytes }, None)
}

/// The payloads of frames of less than 126 bytes.
fn payloads(mut wire: &[u8]) -> Vec<String> {
    let mut payloads = Vec::new();
    while let [_, length, rest @ ..] = wire {
        let (payload, rest) = rest.split_at(usize::from(*length));
        payloads.push(String::from_utf8(payload.to_vec()).unwrap());
        wire = rest;
    }
    payloads
}

fn notice(outbox: &Outbox) -> Option<Notice> {
    outbox.notice().now_or_never()
}

#[test]
fn frames_are_written_in_order_and_together() {
    let (outbox, pipe) = (outbox(100, 10_000), Pipe::with(10_000));
    outbox.push(Frame::text("early"));
    outbox.attach(pipe.clone());
    for text in ["one", "two", "three"] {
        outbox.push(Frame::text(text));
    }
    outbox.flush_all();
    assert_eq!(payloads(&pipe.taken()), ["early", "one", "two", "three"]);
    assert_eq!((pipe.calls(), outbox.is_done()), (1, true));
    assert_eq!(outbox.written(), pipe.taken().len() as u64);
}

#[test]
fn a_socket_may_stop_at_any_byte() {
    let texts: Vec<String> = (0..5).map(|number| number.to_string().repeat(9)).collect();
    for first in 0..55 {
        let (outbox, pipe) = (outbox(100, 10_000), Pipe::with(first));
        outbox.attach(pipe.clone());
        for text in &texts[..3] {
            outbox.push(Frame::text(text));
        }
        outbox.flush_all();
        for text in &texts[3..] {
            outbox.push(Frame::text(text));
        }
        // A few bytes at a time from now on.
        let mut turns = 0;
        while !outbox.is_done() {
            outbox.unblock();
            outbox.flush_all();
            pipe.drain(7);
            turns += 1;
            assert!(turns < 100);
        }
        assert_eq!(payloads(&pipe.taken()), texts, "cut at {first}");
        assert_eq!(outbox.queue().bytes, 0);
    }
}

#[test]
fn what_was_taken_and_not_written_does_not_count_as_waiting() {
    let (outbox, pipe) = (outbox(10, 100), Pipe::with(4));
    outbox.attach(pipe.clone());
    for _ in 0..3 {
        outbox.push(frame(30));
    }
    outbox.flush_all();
    // All of this fits into an outbox that is empty.
    for _ in 0..3 {
        outbox.push(frame(30));
    }
    assert!(matches!(notice(&outbox), Some(Notice::Blocked)));
    pipe.drain(1000);
    outbox.unblock();
    assert_eq!(payloads(&pipe.taken()).len(), 6);
}

#[test]
fn a_blocked_socket_is_told_once_and_again_after_it_was_free() {
    let (outbox, pipe) = (outbox(100, 10_000), Pipe::with(4));
    outbox.attach(pipe.clone());
    outbox.push(frame(10));
    outbox.flush_all();
    assert!(matches!(notice(&outbox), Some(Notice::Blocked)));
    assert!(notice(&outbox).is_none() && !outbox.unblock() && notice(&outbox).is_none());
    pipe.drain(8);
    assert!(outbox.unblock() && notice(&outbox).is_none());
    outbox.push(frame(10));
    outbox.flush_all();
    assert!(matches!(notice(&outbox), Some(Notice::Blocked)));
}

#[test]
fn signals_come_after_what_was_pushed_before_them() {
    let (outbox, pipe) = (outbox(100, 10_000), Pipe::with(4));
    outbox.attach(pipe.clone());
    outbox.push(frame(10));
    outbox.signal(Signal::Failed(SubscriptionId::next()));
    outbox.push(Frame::text("after"));
    outbox.flush_all();
    assert!(matches!(notice(&outbox), Some(Notice::Blocked)));
    assert!(notice(&outbox).is_none());
    pipe.drain(100);
    outbox.unblock();
    assert_eq!(payloads(&pipe.taken()), ["x".repeat(10)]);
    let Some(Notice::Signals(signals)) = notice(&outbox) else {
        panic!("no signal");
    };
    assert!(matches!(signals[..], [Signal::Failed(_)]));
    outbox.flush_all();
    assert_eq!(payloads(&pipe.taken())[1], "after");
}

#[test]
fn what_ends_a_connection_does_not_wait_for_a_blocked_socket() {
    let (outbox, pipe) = (outbox(100, 10_000), Pipe::with(4));
    outbox.attach(pipe.clone());
    outbox.push(frame(10));
    outbox.signal(Signal::Failed(SubscriptionId::next()));
    outbox.signal(Signal::Lost);
    let lost = |outbox: &Outbox| match notice(outbox) {
        Some(Notice::Signals(signals)) => matches!(signals[..], [Signal::Lost]),
        _ => false,
    };
    assert!(notice(&outbox).is_none(), "its frames come first");
    outbox.flush_all();
    assert!(lost(&outbox));
    assert!(matches!(notice(&outbox), Some(Notice::Blocked)));
    outbox.signal(Signal::Lost);
    assert!(lost(&outbox) && notice(&outbox).is_none());
    pipe.drain(100);
    outbox.unblock();
    assert!(matches!(notice(&outbox), Some(Notice::Signals(signals)) if signals.len() == 1));
}

#[test]
fn who_waits_for_room_hears_that_signals_have_gone() {
    let outbox = outbox(16, 1000);
    outbox.signal(Signal::Failed(SubscriptionId::next()));
    let large = frame(5000);
    let mut room = Box::pin(outbox.room(&large));
    let mut context = std::task::Context::from_waker(futures::task::noop_waker_ref());
    assert!(room.as_mut().poll(&mut context).is_pending());
    assert!(matches!(notice(&outbox), Some(Notice::Signals(_))));
    assert_eq!(room.now_or_never(), Some(true));
}

#[test]
fn too_many_frames_or_bytes_end_it() {
    for (limits, lengths) in [((2, 100), vec![1, 1, 1]), ((10, 100), vec![60, 60])] {
        let outbox = outbox(limits.0, limits.1);
        for length in lengths {
            outbox.push(frame(length));
        }
        assert!(matches!(notice(&outbox), Some(Notice::Overflowed)));
        assert!(!outbox.push(frame(1)));
        assert!(matches!(notice(&outbox), Some(Notice::Overflowed)));
    }
}

#[test]
fn after_an_overflow_the_frame_under_way_is_finished_and_the_farewell_follows() {
    let (outbox, pipe) = (outbox(3, 1000), Pipe::with(4));
    outbox.attach(pipe.clone());
    for text in ["begun", "lost", "lost", "lost", "lost"] {
        outbox.push(Frame::text(text));
        outbox.flush_all();
    }
    assert!(matches!(notice(&outbox), Some(Notice::Overflowed)));
    outbox.finish(false);
    outbox.push_control(Frame::text("bye").wire().clone());
    pipe.drain(100);
    outbox.unblock();
    assert_eq!(payloads(&pipe.taken()), ["begun", "bye"]);
    assert!(outbox.is_done());
}

#[test]
fn last_words_are_written_and_nothing_after_them() {
    for (last_words, expected) in [(true, vec!["last", "bye"]), (false, vec!["bye"])] {
        let (outbox, pipe) = (outbox(10, 1000), Pipe::with(1000));
        outbox.push(Frame::text("last"));
        outbox.signal(Signal::Lost);
        outbox.attach(pipe.clone());
        outbox.finish(last_words);
        outbox.push(Frame::text("late"));
        outbox.push_control(Frame::text("bye").wire().clone());
        outbox.flush_all();
        assert_eq!(payloads(&pipe.taken()), expected);
    }
}

#[test]
fn one_frame_may_be_larger_than_the_limit() {
    let (outbox, pipe) = (outbox(10, 100), Pipe::with(10_000));
    outbox.attach(pipe.clone());
    outbox.push(frame(1000));
    outbox.flush_all();
    outbox.push(frame(50));
    outbox.flush_all();
    assert!(outbox.is_done() && notice(&outbox).is_none());
}

#[test]
fn a_call_takes_a_piece_and_the_rest_still_counts() {
    let (outbox, pipe) = (outbox(200, 100_000), Pipe::with(100_000));
    outbox.attach(pipe.clone());
    for _ in 0..150 {
        outbox.push(frame(10));
    }
    let mut piece = Piece::default();
    let left = [86, 22, 0].map(|left| {
        assert_eq!(outbox.flush(&mut piece), left > 0);
        outbox.queue().items.len() == left && outbox.queue().bytes == 10 * left
    });
    assert_eq!((left, pipe.calls()), ([true; 3], 3));
}

#[test]
fn a_broken_socket_is_told_and_ends_writing() {
    struct Broken;
    impl Wire for Broken {
        fn write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let outbox = outbox(10, 100);
    outbox.attach(Arc::new(Broken));
    outbox.push(frame(1));
    outbox.flush_all();
    assert!(matches!(notice(&outbox), Some(Notice::Broken(_))));
    assert!(outbox.is_done());
}

#[test]
fn it_is_crowded_until_there_is_room_or_its_client_does_not_read() {
    let (outbox, pipe) = (outbox(8, 10_000), Pipe::with(0));
    outbox.attach(pipe.clone());
    let crowded: Vec<_> = (0..6).map(|_| outbox.push(frame(1))).collect();
    assert_eq!(crowded, [false, false, false, false, true, true]);
    assert_eq!(outbox.crowded(), Some(0.75));
    // It cannot be written now.
    outbox.flush_all();
    assert_eq!(outbox.crowded(), None);
    assert!(!outbox.push(frame(1)));
    pipe.drain(1000);
    outbox.unblock();
    assert_eq!((outbox.crowded(), outbox.is_done()), (None, true));
}

#[test]
fn who_has_much_to_say_leaves_room_and_waits_for_all_of_it_with_a_large_frame() {
    let outbox = outbox(16, 1000);
    let has_room = |length| outbox.room(&frame(length)).now_or_never().is_some();
    assert!(has_room(5000));
    outbox.push(frame(100));
    assert!(has_room(900) && !has_room(901));
    outbox.push(frame(100));
    assert!(!has_room(1));
    assert_eq!(outbox.take().len(), 2);
    assert!(has_room(5000));
}

#[tokio::test]
async fn a_flusher_writes_what_is_pushed_and_who_waits_for_room_has_it() {
    let round: Arc<Round> = Arc::default();
    let limits = Limits {
        frames: 8,
        bytes: 1000,
    };
    let outbox = Outbox::new(limits, Some(round.clone()));
    let pipe = Pipe::with(100_000);
    outbox.attach(pipe.clone());
    let talking = async {
        for number in 0..200 {
            let frame = Frame::text(number.to_string());
            outbox.room(&frame).await;
            outbox.push(frame);
        }
        while !outbox.is_done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = talking => {}
        () = round.run() => {}
    }
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(payloads(&pipe.taken()), expected);
}

/// Overflows its outbox in the midst of a call, and takes so much of that.
struct Flooded(Mutex<Option<Arc<Outbox>>>, Pipe);

impl Wire for Flooded {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(outbox) = self.0.lock().unwrap().take() {
            for _ in 0..4 {
                outbox.push(Frame::text("lost"));
            }
        }
        self.1.write(slices)
    }
}

#[test]
fn what_is_being_written_at_an_overflow_is_finished_as_far_as_it_was_begun() {
    for (room, expected) in [
        (3, vec!["first"]),
        (7, vec!["first"]),
        (9, vec!["first", "second"]),
    ] {
        let outbox = outbox(3, 1000);
        let wire = Arc::new(Flooded(Mutex::new(Some(outbox.clone())), Pipe::default()));
        wire.1.drain(room);
        outbox.attach(wire.clone());
        outbox.push(Frame::text("first"));
        outbox.push(Frame::text("second"));
        outbox.flush_all();
        assert!(matches!(notice(&outbox), Some(Notice::Overflowed)));
        outbox.finish(false);
        outbox.push_control(Frame::text("bye").wire().clone());
        wire.1.drain(100);
        outbox.unblock();
        let told = payloads(&wire.1.taken());
        assert_eq!(told, [expected, vec!["bye"]].concat(), "{room}");
    }
}

/// While no worker is idle, a task that yields comes last.
#[tokio::test]
async fn a_flusher_keeps_up_with_many_busy_tasks() {
    let round: Arc<Round> = Arc::default();
    let limits = Limits {
        frames: 4096,
        bytes: 1 << 20,
    };
    let outbox = Outbox::new(limits, Some(round.clone()));
    outbox.attach(Pipe::with(usize::MAX));
    let flusher = tokio::spawn(async move { round.run().await });
    let pushing: Vec<_> = (0..100)
        .map(|_| {
            let outbox = outbox.clone();
            tokio::spawn(async move {
                for _ in 0..1000 {
                    outbox.push(frame(1));
                    outbox.push(frame(1));
                    // Ready again at once, and not behind those who yield.
                    let mut woken = false;
                    poll_fn(|context| match std::mem::replace(&mut woken, true) {
                        true => Poll::Ready(()),
                        false => {
                            context.waker().wake_by_ref();
                            Poll::Pending
                        }
                    })
                    .await;
                }
            })
        })
        .collect();
    futures::future::try_join_all(pushing).await.unwrap();
    assert!(notice(&outbox).is_none(), "it has overflowed");
    flusher.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_and_many_pushers_neither_lose_nor_mix_frames() {
    let round: Arc<Round> = Arc::default();
    let limits = Limits {
        frames: 100_000,
        bytes: 10_000_000,
    };
    let outbox = Outbox::new(limits, Some(round.clone()));
    let pipe = Pipe::with(10_000_000);
    outbox.attach(pipe.clone());
    let flusher = tokio::spawn(async move { round.run().await });
    let pushing: Vec<_> = (0..4)
        .map(|pusher| {
            let outbox = outbox.clone();
            std::thread::spawn(move || {
                for number in 0..2000 {
                    outbox.push(Frame::text(format!("{pusher}:{number}")));
                    if number % 7 == pusher {
                        outbox.flush_all();
                    }
                }
            })
        })
        .collect();
    for thread in pushing {
        thread.join().unwrap();
    }
    while !outbox.is_done() {
        tokio::task::yield_now().await;
    }
    flusher.abort();
    let payloads = payloads(&pipe.taken());
    assert_eq!(payloads.len(), 8000);
    for pusher in 0..4 {
        let prefix = format!("{pusher}:");
        let of_one = payloads
            .iter()
            .filter_map(|text| text.strip_prefix(&prefix));
        assert!(
            of_one.eq((0..2000)
                .map(|number| number.to_string())
                .collect::<Vec<_>>()
                .iter())
        );
    }
}
