use std::sync::Arc;

use super::*;

/// The texts that a client reads of what `stages` tell.
async fn told(stages: usize, tell: impl AsyncFnOnce(Arc<Turns>)) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let turns = Arc::new(Turns::new(stages, directory.path().to_owned()));
    let (sender, mut receiver) = mpsc::channel(1);
    let telling = {
        let turns = turns.clone();
        async move {
            turns.tell_all(&sender).await;
            drop(sender);
        }
    };
    let reading = async {
        let mut texts = Vec::new();
        while let Some(line) = receiver.recv().await {
            match line {
                BuildLine::Text(text) => texts.push(text),
                other => texts.push(format!("{other:?}")),
            }
        }
        texts
    };
    let ((), (), texts) = tokio::join!(tell(turns), telling, reading);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    texts
}

fn text(text: &str) -> BuildLine {
    BuildLine::Text(text.to_owned())
}

#[tokio::test]
async fn stages_are_told_one_after_the_other() {
    let texts = told(3, async |turns| {
        turns.tell(2, text("c1")).await;
        turns.tell(1, text("b1")).await;
        turns.tell(0, text("a1")).await;
        turns.tell(2, BuildLine::Image("c".to_owned())).await;
        turns.end(1);
        turns.tell(0, text("a2")).await;
        turns.end(0);
        turns.tell(2, text("c2")).await;
        turns.end(2);
    });
    assert_eq!(texts.await, ["a1", "a2", "b1", "c1", "Image(\"c\")", "c2"]);
}

#[tokio::test]
async fn much_that_waits_is_in_files_and_in_order() {
    let wanted: Vec<String> = (0..500).map(|number| format!("{number:4096}")).collect();
    let texts = told(2, async |turns| {
        for line in &wanted {
            // It never waits for the reader: nothing is read of the first one yet.
            turns.tell(1, text(line)).await;
        }
        turns.end(1);
        turns.tell(0, text("first")).await;
        turns.end(0);
    });
    let texts = texts.await;
    assert_eq!(texts[0], "first");
    assert_eq!(texts[1..], wanted);
}

#[tokio::test]
async fn whose_turn_it_is_waits_for_the_reader() {
    let directory = tempfile::tempdir().unwrap();
    let turns = Turns::new(1, directory.path().to_owned());
    let telling = async {
        for number in 0..500 {
            turns.tell(0, text(&format!("{number:4096}"))).await;
        }
    };
    let others = async {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = telling => panic!("it did not wait"),
        () = others => {}
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_fails_is_told_last() {
    let texts = told(4, async |turns| {
        for (stage, line) in [(1, "b"), (3, "d"), (0, "a"), (2, "c")] {
            turns.tell(stage, text(line)).await;
        }
        turns.fail(2);
    });
    assert_eq!(texts.await, ["a", "c"]);
    let texts = told(2, async |turns| {
        turns.tell(1, text("b")).await;
        turns.tell(0, text("a")).await;
        turns.fail(0);
    });
    assert_eq!(texts.await, ["a"]);
}
