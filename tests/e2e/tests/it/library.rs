//! The images of `library/`: each is built of Debian's packages, and does what its name promises, with the flags that tutorials
//! show for it. Slow: packages are fetched from Debian's mirror; without a way to it they are skipped.

mod base;

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, http};

use crate::build::{context, path};
use crate::support::At;
use base::with_image;

/// How long a server may take until it serves: databases are made before that.
const STARTED: Duration = Duration::from_secs(120);

/// The host's address of a published port.
fn published(at: &At<'_>, name: &str, port: u16) -> String {
    at.ok(&format!("port {name} {port}")).lines().next().unwrap().to_owned()
}

fn connect(address: &str) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    Some(stream)
}

/// Asks for a page once.
fn page(address: &str, target: &str) -> Option<http::Response> {
    let mut stream = connect(address)?;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    http::read_response(&mut BufReader::new(stream)).ok()
}

/// Waits for a page that is served, and says what it says.
fn served(at: &At<'_>, name: &str, port: u16, target: &str) -> String {
    let address = published(at, name, port);
    let good = || page(&address, target).filter(|answer| answer.status == 200);
    match until(target, STARTED, good) {
        Ok(answer) => answer.text(),
        Err(err) => panic!("{name}: {err:#}: {:?}", at.line(&format!("logs {name}"))),
    }
}

/// Types a line until it succeeds.
fn eventually(at: &At<'_>, line: &str) -> String {
    let end = Instant::now() + STARTED;
    loop {
        let output = at.line(line);
        if output.code == 0 {
            return output.stdout.trim().to_owned();
        }
        assert!(Instant::now() < end, "{line}: {output:?}");
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

/// Waits for what a server logs of a request, after its answer.
fn logged(at: &At<'_>, name: &str, words: &str) {
    until(words, DEADLINE, || at.ok(&format!("logs {name}")).contains(words).then_some(())).unwrap();
}

/// Ends a container, which must end by itself and well.
fn ends(at: &At<'_>, name: &str) {
    at.ok(&format!("stop -t 30 {name}"));
    assert_eq!(at.inspect(name, "{{.State.ExitCode}}"), "0", "{:?}", at.line(&format!("logs {name}")));
    at.ok(&format!("rm -v {name}"));
}

#[test]
fn privileged_slow_library_nginx_serves_pages() {
    with_image("nginx", |at| {
        at.ok("run -d --name web -p 127.0.0.1::80 nginx:latest");
        assert!(served(at, "web", 80, "/").contains("Welcome to nginx!"));
        logged(at, "web", "\"GET / HTTP/1.0\" 200");
        ends(at, "web");
        // 000, 3.1.2.3.2: a page of one's own.
        let own = context(&[
            ("Dockerfile", "FROM nginx:latest\nCOPY custom-index.html /usr/share/nginx/html/index.html\n"),
            ("custom-index.html", "<h1>mine</h1>\n"),
        ]);
        at.ok(&format!("build -t custom-nginx {}", path(&own)));
        at.ok("run -d --name own -p 127.0.0.1::80 custom-nginx");
        assert_eq!(served(at, "own", 80, "/"), "<h1>mine</h1>\n");
        ends(at, "own");
    });
}

#[test]
fn privileged_slow_library_httpd_serves_pages() {
    with_image("httpd", |at| {
        at.ok("run -d --name web -p 127.0.0.1::80 httpd:latest");
        assert!(served(at, "web", 80, "/").contains("It works!"));
        logged(at, "web", "\"GET / HTTP/1.0\" 200");
        at.ok("restart web");
        assert!(served(at, "web", 80, "/").contains("It works!"));
        ends(at, "web");
    });
}

#[test]
fn privileged_slow_library_redis_keeps_what_it_is_told() {
    with_image("redis", |at| {
        let say = |words: &str, wanted: &str| {
            let mut stream = until("redis", STARTED, || connect(&published(at, "store", 6379))).unwrap();
            write!(stream, "{words}\r\n").unwrap();
            let mut answer = vec![0; wanted.len()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), wanted, "{words}");
        };
        at.ok("run -d --name store -p 127.0.0.1::6379 -v kept:/data redis:latest");
        say("PING", "+PONG\r\n");
        say("SET a b", "+OK\r\n");
        assert_eq!(at.ok("exec store redis-cli get a"), "b");
        assert!(at.ok("top store -o user,pid,comm").contains("redis-server"));
        ends(at, "store");
        // What was saved at its end is there again; flags alone are the server's.
        at.ok("run -d --name store -p 127.0.0.1::6379 -v kept:/data redis --requirepass word");
        say("GET a", "-NOAUTH");
        assert_eq!(at.ok("exec store redis-cli --no-auth-warning -a word get a"), "b");
        ends(at, "store");
    });
}

#[test]
fn privileged_slow_library_python_runs_a_flask_application() {
    with_image("python", |at| {
        assert_eq!(at.run("python:latest python -c 'print(6*7)'"), "42");
        // 003, the Dockerfile at its end; its application listens on 127.0.0.1 alone, as is said there.
        let flask = context(&[
            (
                "Dockerfile",
                "FROM python\nARG PIP_CERT\nLABEL auth=\"shuo\"\nCOPY ca.crt /tmp/\nRUN pip install flask\nCOPY app.py /app/\n\
                 WORKDIR /app\nEXPOSE 5000\nCMD [\"python\",\"app.py\"]\n",
            ),
            (
                "app.py",
                "from flask import Flask\napp = Flask(__name__)\n@app.route('/')\ndef hello():\n    return \"hello docker\"\n\
                 if __name__ == '__main__':\n    app.run()\n",
            ),
            // Where a proxy signs what comes, pip has to know it as this machine does.
            ("ca.crt", &std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default()),
        ]);
        base::built(at, "flask-hello-world", &format!("--build-arg PIP_CERT=/tmp/ca.crt {}", path(&flask)));
        at.ok("run -d --name app flask-hello-world");
        assert!(at.ok("ps --filter name=app").contains("5000/tcp"));
        let ask = "exec app python -c 'import urllib.request; print(urllib.request.urlopen(\"http://127.0.0.1:5000/\").read().decode())'";
        assert_eq!(eventually(at, ask), "hello docker");
        at.ok("rm -f app");
    });
}

#[test]
fn privileged_slow_library_node_serves_pages() {
    with_image("node", |at| {
        assert_eq!(at.run("node:latest -e 'console.log(6*7)'"), "42");
        assert!(!at.run("node npm --version").is_empty());
        let app = context(&[
            ("Dockerfile", "FROM node\nWORKDIR /app\nCOPY app.js .\nUSER node\nEXPOSE 3000\nCMD [\"app.js\"]\n"),
            ("app.js", "require('http').createServer((q, a) => a.end('from node ' + process.getuid())).listen(3000)\n"),
        ]);
        at.ok(&format!("build -t app {}", path(&app)));
        at.ok("run -d --init --name app -p 127.0.0.1::3000 app");
        assert_eq!(served(at, "app", 3000, "/"), "from node 1000");
        at.ok("rm -f app");
    });
}

#[test]
fn privileged_slow_library_openjdk_compiles_and_runs() {
    with_image("openjdk", |at| {
        let version = at.line("run --rm --network none openjdk:latest java -version");
        assert!(version.code == 0 && version.stderr.contains("openjdk version \"17"), "{version:?}");
        let program = context(&[
            ("Dockerfile", "FROM openjdk\nCOPY Main.java .\nRUN javac Main.java\nCMD [\"java\", \"Main\"]\n"),
            (
                "Main.java",
                "class Main { public static void main(String[] a) { System.out.println(\"from java\"); } }\n",
            ),
        ]);
        at.ok(&format!("build -t program {}", path(&program)));
        assert_eq!(at.run("program"), "from java");
    });
}

#[test]
fn privileged_slow_library_mariadb_answers_with_the_password_that_was_set() {
    with_image("mariadb", |at| {
        let refused = at.line("run --rm --network none mariadb");
        assert!(refused.code == 1 && refused.stderr.contains("no password for root"), "{refused:?}");
        let scripts = context(&[("a.sql", "CREATE TABLE said (word TEXT); INSERT INTO said VALUES ('it''s');\n")]);
        let variables =
            "-e MYSQL_ROOT_PASSWORD=my-secret'-'pw -e MYSQL_DATABASE=app -e MYSQL_USER=me -e MARIADB_PASSWORD=mine";
        at.ok(&format!(
            "run -d --name db {variables} -v {}:/docker-entrypoint-initdb.d:ro -v kept:/var/lib/mysql mariadb:latest",
            path(&scripts)
        ));
        let over = |user: &str, password: &str, sql: &str| {
            format!("run --rm --network container:db mariadb mariadb -h 127.0.0.1 -u{user} -p{password} -Ne '{sql}'")
        };
        assert_eq!(eventually(at, &over("root", "my-secret-pw", "SELECT 6*7")), "42");
        assert_eq!(at.ok(&over("me", "mine", "SELECT word FROM app.said")), "it's");
        at.fails(&over("root", "wrong", "SELECT 1"), 1, "Access denied");
        // No account is without a password, by the socket either.
        at.fails("exec db mariadb -uroot -Ne 'SELECT 1'", 1, "Access denied");
        assert_eq!(
            at.ok("exec db mariadb -uroot -pmy-secret-pw -Ne 'SELECT COUNT(*) FROM mysql.user WHERE User=\"\"'"),
            "0"
        );
        ends(at, "db");
        // The data is made once.
        at.ok("run -d --name db -v kept:/var/lib/mysql mariadb");
        assert_eq!(eventually(at, &over("me", "mine", "SELECT word FROM app.said")), "it's");
        ends(at, "db");
    });
}

#[test]
fn privileged_slow_library_postgres_answers_with_the_password_that_was_set() {
    with_image("postgres", |at| {
        let refused = at.line("run --rm --network none postgres");
        assert!(refused.code == 1 && refused.stderr.contains("set POSTGRES_PASSWORD"), "{refused:?}");
        let scripts = context(&[("a.sql", "CREATE TABLE said (word TEXT); INSERT INTO said VALUES ('kept');\n")]);
        at.ok(&format!(
            "run -d --name db -e POSTGRES_PASSWORD=mysecretpassword -e POSTGRES_DB=app -v {}:/docker-entrypoint-initdb.d:ro \
             -v kept:/var/lib/postgresql/data postgres:latest",
            path(&scripts)
        ));
        let over = |password: &str, sql: &str| {
            format!(
                "run --rm --network container:db -e PGPASSWORD={password} postgres psql -h 127.0.0.1 -U postgres -d app -tAc '{sql}'"
            )
        };
        assert_eq!(eventually(at, &over("mysecretpassword", "SELECT 6*7")), "42");
        assert_eq!(at.ok(&over("mysecretpassword", "SELECT word FROM said")), "kept");
        ends(at, "db");
        at.ok("run -d --name db -v kept:/var/lib/postgresql/data postgres -c max_connections=17");
        assert_eq!(eventually(at, &over("mysecretpassword", "SHOW max_connections")), "17");
        assert_eq!(at.ok(&over("mysecretpassword", "SELECT word FROM said")), "kept");
        // From another address than the container's own the password is asked for.
        let host = at.inspect("db", "{{.NetworkSettings.IPAddress}}");
        let wrong = format!("run --rm -e PGPASSWORD=wrong postgres psql -h {host} -U postgres -tAc 'SELECT 1'");
        at.fails(&wrong, 2, "password authentication failed");
        ends(at, "db");
    });
}

#[test]
fn privileged_slow_library_prometheus_watches_itself() {
    with_image("prometheus", |at| {
        at.ok("run -d --name watch -p 127.0.0.1::9090 prometheus:latest");
        assert!(served(at, "watch", 9090, "/-/ready").contains("Ready"));
        let up = || Some(served(at, "watch", 9090, "/api/v1/query?query=up")).filter(|text| text.contains(",\"1\"]"));
        until("a scrape", STARTED, up).unwrap();
        ends(at, "watch");
    });
}

#[test]
fn privileged_slow_library_rabbitmq_speaks_amqp_and_shows_its_pages() {
    with_image("rabbitmq", |at| {
        let variables = "-e RABBITMQ_DEFAULT_USER=me -e RABBITMQ_DEFAULT_PASS=mine";
        at.ok(&format!(
            "run -d --name queue --hostname queue {variables} -p 127.0.0.1::5672 -p 127.0.0.1::15672 rabbitmq:latest"
        ));
        assert!(served(at, "queue", 15672, "/").contains("RabbitMQ"));
        let mut stream = until("AMQP", STARTED, || connect(&published(at, "queue", 5672))).unwrap();
        stream.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
        let mut frame = [0; 11];
        stream.read_exact(&mut frame).unwrap();
        // A method of channel 0: connection.start (AMQP 0-9-1, 1.4.2.1).
        assert_eq!((&frame[..3], &frame[7..]), (&[1, 0, 0][..], &[0, 10, 0, 10][..]));
        assert!(at.ok("exec -u rabbitmq queue rabbitmqctl authenticate_user me mine").contains("Success"));
        ends(at, "queue");
    });
}

#[test]
fn privileged_slow_library_etcd_keeps_keys() {
    with_image("etcd", |at| {
        at.ok("run -d --name my-etcd -p 127.0.0.1::2379 -p 127.0.0.1::2380 etcd:latest");
        assert!(served(at, "my-etcd", 2379, "/version").contains("etcdserver"));
        assert_eq!(at.ok("exec my-etcd etcdctl put key1 value1"), "OK");
        assert_eq!(at.ok("exec my-etcd etcdctl get key1"), "key1\nvalue1");
        ends(at, "my-etcd");
    });
}

#[test]
fn privileged_slow_library_wordpress_asks_for_its_database() {
    with_image("php", |at| {
        let site = context(&[("Dockerfile", "FROM php\nCOPY . .\n"), ("index.php", "<?php echo 'php ', 6 * 7;\n")]);
        at.ok(&format!("build -t site {}", path(&site)));
        at.ok("run -d --name site -p 127.0.0.1::80 site");
        assert_eq!(served(at, "site", 80, "/"), "php 42");
        ends(at, "site");
        for image in ["wordpress", "mariadb"] {
            base::built(at, image, &base::directory(image));
        }
        at.ok("network create blog");
        at.ok("run -d --name db --network blog -e MYSQL_ROOT_PASSWORD=pw -e MYSQL_DATABASE=wordpress mariadb");
        let variables = "-e WORDPRESS_DB_HOST=db -e WORDPRESS_DB_PASSWORD=pw";
        at.ok(&format!("run -d --name blog --network blog -p 127.0.0.1::80 {variables} wordpress:latest"));
        // Its tables are not there yet: it offers to make them, in which case it has reached the database.
        let address = published(at, "blog", 80);
        let offered = || page(&address, "/wp-admin/install.php").filter(|answer| answer.text().contains("language"));
        if let Err(err) = until("WordPress's first page", STARTED, offered) {
            panic!("{err:#}: {:?} {:?}", page(&address, "/"), at.line("logs blog"));
        }
        at.ok("rm -f -v blog db");
        at.ok("network rm blog");
    });
}

/// The command line of tests here: one is enough, they are about images.
fn at(daemon: &Daemon) -> At<'_> {
    At { daemon, cli: Cli::Longshore }
}
