//! Independent pieces of work on all cores, results in order.

use std::sync::atomic::{AtomicUsize, Ordering};

/// `work(0)`, …, `work(n - 1)`: on the CPU as many at once as rayon has threads, elsewhere one after the other, since such a device is
/// parallel in itself and takes its work from one queue.
///
/// The threads are not rayon's own: one of those, while it waits inside a backward pass for a matrix product, would take up another
/// pass and wait for a lock that it holds itself.
pub(crate) fn beside_each_other<T: Send>(
    on_cpu: bool,
    n: usize,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    if !on_cpu {
        return (0..n).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= n {
                return done;
            }
            done.push((index, work(index)));
        }
    };
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..rayon::current_num_threads().min(n)).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .flat_map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::beside_each_other;

    #[test]
    fn results_come_in_order() {
        for on_cpu in [true, false] {
            let squares = beside_each_other(on_cpu, 100, |i| i * i);
            assert_eq!(squares, (0..100).map(|i| i * i).collect::<Vec<_>>());
            assert!(beside_each_other(on_cpu, 0, |i| i).is_empty());
        }
    }
}
