use std::path::Path;
use std::sync::Arc;

use super::*;

impl Turns {
    /// Waits for who reads as long as he likes.
    async fn tell(&self, stage: usize, line: BuildLine) {
        self.tell_within(stage, line, None).await.unwrap();
    }
}

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

/// The bytes of all files of a directory.
fn bytes_in(directory: &Path) -> u64 {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn endless_output_that_waits_is_bounded_and_what_is_left_out_is_told() {
    let line = format!("{:65000}\n", 0);
    let more_than_is_held = HELD_MAX / line.len() + 100;
    let texts = told(3, async |turns| {
        for _ in 0..more_than_is_held {
            // It may hold a cache that the first one waits for: it does not wait either.
            turns.tell(2, text(&line)).await;
        }
        assert!(bytes_in(&turns.place) <= HELD_MAX as u64 * 2, "{} bytes", bytes_in(&turns.place));
        // What programs read comes whatever is left out.
        turns.tell(2, BuildLine::Image("c".to_owned())).await;
        turns.tell(1, text("b")).await;
        turns.end(1);
        turns.tell(0, text("a")).await;
        turns.end(0);
        while lock(&turns.state).turn < 2 || lock(&turns.state).held > 0 {
            tokio::task::yield_now().await;
        }
        turns.tell(2, text("last")).await;
        turns.end(2);
    });
    let texts = texts.await;
    let held = texts.iter().filter(|text| **text == line).count();
    assert!(held < more_than_is_held);
    let left_out = (more_than_is_held - held) * line.len();
    let others: Vec<&str> = texts.iter().filter(|text| **text != line).map(String::as_str).collect();
    let note = format!("[output left out: {left_out} bytes]\n");
    assert_eq!(others, ["a", "b", &note, "Image(\"c\")", "last"]);
}

#[tokio::test]
async fn what_cannot_be_put_away_is_left_out_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let turns = Turns::new(2, directory.path().join("none"));
    for _ in 0..1000 {
        turns.tell(1, text(&format!("{:4096}", 0))).await;
    }
    let held: usize = lock(&turns.state).stages[1].pieces.iter().map(Piece::bytes).sum();
    assert!(held < 2 * MEMORY_MAX + 4096, "{held} bytes");
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
