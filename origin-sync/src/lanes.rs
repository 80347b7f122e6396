//! Work on many things, so many at once, in the order of the things.

use tokio::task::JoinSet;

/// Does `work` for each of the items, at most `at_once` at a time. The first error ends it: what has not begun does not
/// begin, what has begun is dropped.
pub async fn each<T, R, E, F>(
    items: impl IntoIterator<Item = T>,
    at_once: usize,
    work: impl Fn(T) -> F,
) -> Result<Vec<R>, E>
where
    F: Future<Output = Result<R, E>> + Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    let mut items = items.into_iter().enumerate();
    let mut running = JoinSet::new();
    let mut done = Vec::new();
    loop {
        while running.len() < at_once.max(1)
            && let Some((place, item)) = items.next()
        {
            let task = work(item);
            running.spawn(async move { (place, task.await) });
        }
        match running.join_next().await {
            None => break,
            Some(Ok((place, result))) => done.push((place, result?)),
            // Nobody aborts a task here: it panicked, and so does who waits for it.
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// As [`each`], for work that takes a thread.
pub async fn each_blocking<T, R, E>(
    items: impl IntoIterator<Item = T>,
    at_once: usize,
    work: impl Fn(T) -> Result<R, E> + Clone + Send + 'static,
) -> Result<Vec<R>, E>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + 'static,
{
    each(items, at_once, |item| {
        let work = work.clone();
        async move {
            match tokio::task::spawn_blocking(move || work(item)).await {
                Ok(result) => result,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn results_come_in_order_and_no_more_run_than_may() {
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let work = |item: u64| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..(20 - item) {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<u64, ()>(item * 2)
            }
        };
        assert_eq!(
            each(0..20, 3, work).await,
            Ok((0..20).map(|item| item * 2).collect())
        );
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn the_first_error_ends_it() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        let work = move |item: usize| {
            counted.fetch_add(1, Ordering::SeqCst);
            if item == 2 { Err(item) } else { Ok(item) }
        };
        assert_eq!(each_blocking(0..1_000, 1, work).await, Err(2));
        assert_eq!(begun.load(Ordering::SeqCst), 3);
    }
}
