//! Loads an archive into a store and says how long it took: `load ROOT ARCHIVE`.

use std::time::Instant;

fn main() {
    let mut args = std::env::args().skip(1);
    let (root, archive) = (args.next().expect("ROOT"), args.next().expect("ARCHIVE"));
    let start = Instant::now();
    let store = image::Store::open(root.as_ref()).expect("the store opens");
    eprintln!("open {:?} {:?}", start.elapsed(), store.torn());
    let start = Instant::now();
    let loaded =
        store.load(std::fs::File::open(archive).expect("the archive opens"), &mut |event| println!("{event:?}"));
    match loaded {
        Ok(loaded) => eprintln!("{} images in {:?}", loaded.len(), start.elapsed()),
        Err(err) => eprintln!("{}", errdefs::chain(&err)),
    }
    for image in store.list() {
        println!("{} {:?} {} bytes", image.short_id(), image.repo_tags(), image.size_bytes);
    }
}
