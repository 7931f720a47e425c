//! Independent pieces of work on all cores, whose results are taken in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::channel;
use std::sync::{Mutex, OnceLock};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// `take` of `work(0)`, …, `work(n - 1)`, in this order: on the CPU as many of them are worked on at once as rayon has threads, elsewhere one after
/// the other, since such a device is parallel in itself and takes its work from one queue. A result is taken as soon as those before it are: elsewhere
/// none waits for that, and on the CPU at most two pieces a thread are begun and not taken.
///
/// As long as there is a piece for every thread, each is done by one thread alone, without passing kernels and products on to others and waiting
/// for them; those that are left then share all threads. Each thread is the only one of a pool of its own: one that had others, while it waits
/// inside a backward pass for a matrix product, would take up another pass and wait for a lock that it holds itself. For the same reason `work` must
/// not come back here.
///
/// # Errors
/// The first in this order, which ends it.
pub(crate) fn beside_each_other<T: Send, E: Send>(
    on_cpu: bool,
    n: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
    mut take: impl FnMut(T),
) -> Result<(), E> {
    if !on_cpu {
        return (0..n).try_for_each(|piece| work(piece).map(&mut take));
    }
    let pools = alone();
    let whole = n.checked_rem(pools.len()).map_or(0, |left| n - left);
    let on_one = |thread: usize, piece: usize| pools[thread].install(|| work(piece));
    at_once(0..whole, pools.len(), &on_one, &mut take)?;
    at_once(
        whole..n,
        rayon::current_num_threads(),
        &|_: usize, piece: usize| work(piece),
        &mut take,
    )
}

/// Whichever thread is free does the next piece; `work` is told its number.
fn at_once<T: Send, E: Send>(
    pieces: Range<usize>,
    threads: usize,
    work: &(impl Fn(usize, usize) -> Result<T, E> + Sync),
    take: &mut impl FnMut(T),
) -> Result<(), E> {
    let threads = threads.min(pieces.len());
    let (begin, to_do) = channel::<usize>();
    let to_do = &Mutex::new(to_do);
    let next = move || to_do.lock().ok()?.recv().ok();
    // `begin` goes with what takes the results, whatever ends that, and without it the threads end.
    std::thread::scope(move |scope| -> Result<(), E> {
        let (sender, done) = channel();
        for thread in 0..threads {
            let sender = sender.clone();
            scope.spawn(move || {
                while let Some(piece) = next() {
                    let result = catch_unwind(AssertUnwindSafe(|| work(thread, piece)));
                    // Where nobody listens any more, another has failed.
                    if sender.send((piece, result)).is_err() {
                        return;
                    }
                }
            });
        }
        let allow = |piece| {
            // `to_do` is there to the end.
            let _ = begin.send(piece);
        };
        let mut later = pieces.clone();
        later.by_ref().take(2 * threads).for_each(allow);
        let mut early = BTreeMap::<usize, std::thread::Result<Result<T, E>>>::new();
        for piece in pieces {
            let result = loop {
                match early.remove(&piece) {
                    Some(result) => break result,
                    // There is something to come, and `sender` is there to the end.
                    None => early.extend(done.recv()),
                }
            };
            take(result.unwrap_or_else(|panic| resume_unwind(panic))?);
            if let Some(another) = later.next() {
                allow(another);
            }
        }
        Ok(())
    })
}

/// Pools of one thread each, as many as rayon has threads; fewer where the system gives no more.
fn alone() -> &'static [ThreadPool] {
    static POOLS: OnceLock<Vec<ThreadPool>> = OnceLock::new();
    POOLS.get_or_init(|| {
        (0..rayon::current_num_threads())
            .map_while(|_| ThreadPoolBuilder::new().num_threads(1).build().ok())
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::{at_once, beside_each_other};

    #[test]
    fn results_come_in_order() {
        for on_cpu in [true, false] {
            let squares = |n| {
                let (mut squares, work) = (Vec::new(), |i: usize| Ok::<_, ()>(i * i));
                beside_each_other(on_cpu, n, work, |square| squares.push(square)).unwrap();
                squares
            };
            assert_eq!(squares(100), (0..100).map(|i| i * i).collect::<Vec<_>>());
            assert!(squares(0).is_empty());
        }
    }

    #[test]
    fn few_results_wait_to_be_taken() {
        let threads = rayon::current_num_threads();
        for (on_cpu, most) in [(true, 2 * threads), (false, 1)] {
            let (waiting, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = |_: usize| {
                seen.fetch_max(waiting.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                Ok::<_, ()>(())
            };
            let take = |()| {
                waiting.fetch_sub(1, Ordering::SeqCst);
            };
            beside_each_other(on_cpu, 5 * threads + 3, work, take).unwrap();
            assert!(seen.load(Ordering::SeqCst) <= most, "{seen:?} of {most}");
        }
    }

    #[test]
    fn whoever_is_free_goes_on_until_two_pieces_a_thread_are_begun() {
        let (begun, start) = (AtomicUsize::new(0), Instant::now());
        let work = |_: usize, piece: usize| {
            begun.fetch_add(1, Ordering::SeqCst);
            if piece == 0 {
                while begun.load(Ordering::SeqCst) < 6 && start.elapsed().as_secs() < 10 {
                    std::thread::yield_now();
                }
                // Time for one more, which is not to be.
                std::thread::sleep(Duration::from_millis(20));
                return Ok::<_, ()>(begun.load(Ordering::SeqCst));
            }
            Ok(piece)
        };
        let mut taken = Vec::new();
        at_once(0..20, 3, &work, &mut |result| taken.push(result)).unwrap();
        assert_eq!(taken[0], 6);
        assert!(taken[1..].iter().copied().eq(1..20), "{taken:?}");
    }

    #[test]
    fn the_first_failure_ends_it() {
        for on_cpu in [true, false] {
            let mut taken = 0;
            let work = |i: usize| if i % 10 == 7 { Err(i) } else { Ok(i) };
            let found = beside_each_other(on_cpu, 100, work, |_| taken += 1);
            assert_eq!((found, taken), (Err(7), 7));
        }
    }

    #[test]
    #[should_panic(expected = "of a pass")]
    fn a_panic_is_handed_on() {
        let work = |i: usize| if i == 5 { panic!("of a pass") } else { Ok::<_, ()>(i) };
        let _ = beside_each_other(true, 100, work, |_| ());
    }

    #[test]
    #[should_panic(expected = "of what takes")]
    fn a_panic_of_what_takes_is_handed_on() {
        let take = |i: usize| assert!(i != 5, "of what takes");
        let _ = beside_each_other(true, 100, Ok::<_, ()>, take);
    }
}
