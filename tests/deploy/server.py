"""A running asymserve on ports that the system chose."""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.request

import promql


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
                self.reader = threading.Thread(target=self.process.stderr.read, daemon=True)
                self.reader.start()
                return
        self.process.wait()
        raise RuntimeError("the server ended before it served:\n" + "".join(log))

    def scrape(self):
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def start_call(self, client, *arguments):
        """A completion whose text is read from `stdout`; ends at its limit of tokens only."""
        command = [client, "complete", "--address", self.address, "--ignore-eos", *arguments]
        return subprocess.Popen(
            command + ["hello"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def complete(self, client, tokens):
        call = self.start_call(client, "--max-tokens", str(tokens))
        call.communicate()
        if call.returncode != 0:
            raise RuntimeError(f"the client ended with {call.returncode}")

    def health(self, client, service):
        run = subprocess.run(
            [client, "health", "--address", self.address, service], capture_output=True, text=True
        )
        return run.stdout.strip()

    def wait_for(self, metric, condition, timeout_s=30):
        """Until a scrape has a sample `metric`, without labels, whose value meets `condition`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for name, labels, value in promql.parse_scrape(self.scrape()):
                if name == metric and not labels and condition(value):
                    return
            time.sleep(0.02)
        raise AssertionError(f"{metric}: not within {timeout_s} s")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        """The exit status."""
        status = self.process.wait(timeout=60)
        self.reader.join()
        self.process.stderr.close()
        return status

    def stop(self):
        self.terminate()
        return self.wait()

    def kill(self):
        """For a test that failed before it stopped the server."""
        if self.process.poll() is None:
            self.process.kill()
            self.wait()


def deployed_toy_server(binary, writer, config, directory, sets=()):
    """A server with the deployed configuration, but for the model, which `writer` writes to
    `directory`, and what depends on it."""
    model = os.path.join(directory, "toy.gguf")
    subprocess.run([writer, model], check=True)
    toy = ("kv.scheme=exact", "kv.profile=", "engine.threads=1")
    return Server(binary, "--config", config, "--model", model, sets=toy + tuple(sets))
