"""A running asymserve on ports that the system chose."""

import json
import signal
import subprocess
import threading
import urllib.request


class Server:
    def __init__(self, binary, *arguments, sets=()):
        """`sets`: options as section.name=value, stronger than the configuration file."""
        command = [binary, "serve", *arguments]
        local = ("server.address=127.0.0.1:0", "metrics.address=127.0.0.1:0", "log.format=json")
        for option in local + tuple(sets):
            command += ["--set", option]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.address = self.metrics = None
        log = []
        for line in self.process.stderr:
            log.append(line)
            event = json.loads(line)
            if event.get("event") == "metrics":
                self.metrics = event["address"]
            if event.get("event") == "serving":
                self.address = event["address"]
                # A full pipe would stop the server.
                self.reader = threading.Thread(target=self.process.stderr.read)
                self.reader.start()
                return
        raise RuntimeError("the server ended before it served:\n" + "".join(log))

    def scrape(self):
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def complete(self, client, tokens):
        subprocess.run(
            [client, "complete", "--address", self.address, "--max-tokens", str(tokens), "hello"],
            check=True,
            capture_output=True,
        )

    def health(self, client, service):
        run = subprocess.run(
            [client, "health", "--address", self.address, service], capture_output=True, text=True
        )
        return run.stdout.strip()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        self.reader.join()
        self.process.stderr.close()
        return status
