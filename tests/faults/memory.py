"""Too little memory: of the budget, of the address space, of the cgroup."""

import os
import resource
import signal
import subprocess
import threading

import grpc

from harness import Books, FaultTest, Setup, eventually, generate_request, toy_model

MIB = 1 << 20
CGROUPS = "/sys/fs/cgroup"


def long_prompt(i):
    return f"prompt {i}: " + "once upon a time " * 40  # 2 chunks and more


class MemoryTest(FaultTest):
    TOKENS = 120

    def requests(self, kinds, tokens=TOKENS, every_second=(), **fields):
        """One of each kind; `every_second` are fields of every second one."""
        return [
            generate_request(
                long_prompt(kind),
                tokens,
                seed=kind,
                **(dict(every_second) if kind % 2 else {}),
                **fields,
            )
            for kind in range(kinds)
        ]

    def alone(self, server, requests):
        """The answer to each while nothing else runs."""
        return [self.answer(server, request) for request in requests]

    @staticmethod
    def answer(server, request):
        return server.stub.GenerateUnary(request, timeout=200).sequences[0]

    def overload(self, server, count, requests):
        """So many calls, of each request in turn, all at once.

        How many were refused, and the answers of the others, by request.
        """
        answers, refused, failed = [[] for _ in requests], [0], []
        lock = threading.Lock()

        def call(kind):
            try:
                answer = self.answer(server, requests[kind])
                with lock:
                    answers[kind].append(answer)
            except grpc.RpcError as error:
                with lock:
                    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                        refused[0] += 1
                    else:
                        failed.append(error)

        threads = [
            threading.Thread(target=call, args=(i % len(requests),)) for i in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])
        return refused[0], answers

    def expect_same_texts(self, answers, alone):
        for kind, (same, right) in enumerate(zip(answers, alone)):
            self.assertEqual({one.text for one in same} - {right.text}, set(), f"kind {kind}")

    def expect_every_way_out(self, scheme, kv_bytes):
        server, books = self.start(
            f"kv.scheme={scheme}",
            f"engine.kv_memory_bytes={kv_bytes}",
            "engine.max_waiting=40",
            "engine.max_running=32",
        )
        exact = {"kv_precision": Setup.pb.KV_PRECISION_EXACT}
        requests = self.requests(8, every_second=exact)
        alone = self.alone(server, requests)
        for i in range(8, 24):  # others, so that finished prompts have to give way
            server.unary(long_prompt(i), 2)
        refused, answers = self.overload(server, 96, requests)
        self.expect_same_texts(answers, alone)
        metrics = server.metrics()
        evicted = metrics["asymserve_prefix_cache_evictions_total"]
        blocked = metrics["asymserve_admission_blocked_steps_total"]
        preempted = metrics["asymserve_preemptions_total"]
        recomputed = metrics["asymserve_recomputed_tokens_total"]
        self.record(
            f"{scheme}, {kv_bytes / MIB:.0f} MiB, 96 calls of 650 tokens",
            f"{evicted:.0f} cached groups, {refused} calls refused, {blocked:.0f} steps without "
            f"admission, {preempted:.0f} preempted ({recomputed:.0f} tokens again)",
        )
        for count in (evicted, blocked, preempted, recomputed, refused):
            self.assertGreater(count, 0)
        self.expect_unharmed(server, books)

    def test_a_budget_that_is_too_small(self):
        """KV budget too small: evict, refuse, preempt and recompute."""
        self.expect_every_way_out("fit-2/2", 5 * MIB)

    def test_a_budget_that_is_too_small_for_exact(self):
        """The same with an exact cache."""
        self.needs_long()
        self.expect_every_way_out("exact", 6 * MIB)

    def test_a_budget_that_takes_precision(self):
        """KV budget too small, kv.elastic: refinements are given up, and their owners say so."""
        # 48 slabs: a dozen of these sequences when they begin, not when they have grown.
        server, books = self.start(
            "kv.scheme=balanced",
            "kv.elastic=true",
            "kv.quality.max_mean_kl=0",
            "kv.quality.max_copy_loss=0",
            "engine.kv_memory_bytes=480KiB",
            "engine.max_running=32",
            model=toy_model("tier"),
        )
        requests = self.requests(5, tokens=400, return_token_ids=True)
        alone = self.alone(server, requests)
        for i in range(5, 9):  # others, so that finished prompts have to give way
            server.unary(long_prompt(i), 2)
        evicted_before = server.metric("prefix_cache_evictions_total")
        refused, answers = self.overload(server, 40, requests)
        self.assertEqual((refused, sum(map(len, answers))), (0, 40))
        degraded = sum(map(self.expect_right_while_precise, answers, alone))
        metrics = server.metrics()
        evicted = metrics["asymserve_prefix_cache_evictions_total"] - evicted_before
        blocked = metrics["asymserve_admission_blocked_steps_total"]
        self.record(
            "a learned tier, 480 KiB, 40 calls of 930 tokens",
            f"precision of {degraded} calls, {evicted:.0f} cached groups, {blocked:.0f} steps "
            "without admission",
        )
        for count in (degraded, evicted, blocked):
            self.assertGreater(count, 0)
        self.assertEqual(metrics["asymserve_kv_degraded_sequences_total"], degraded)
        self.expect_unharmed(server, books)

    def expect_right_while_precise(self, answers, alone):
        """Up to the token that an answer says was computed with less precision; how many say so."""
        ids = lambda answer: [token.id for token in answer.tokens]
        self.assertFalse(alone.final.HasField("degraded_from_token"))
        degraded = 0
        for answer in answers:
            if not answer.final.HasField("degraded_from_token"):
                self.assertEqual(answer.text, alone.text)
                continue
            degraded += 1
            prompt = answer.final.usage.prompt_tokens
            position = answer.final.degraded_from_token
            self.assertLess(position, prompt + len(alone.tokens))
            sure = max(0, position - prompt)
            self.assertEqual(ids(answer)[:sure], ids(alone)[:sure])
        return degraded

    def test_no_address_space_at_the_start(self):
        """ENOMEM at the start: ulimit -v."""
        self.needs_plain_build()
        limit = 1024 * MIB
        server = self.launch(
            "engine.kv_memory_bytes=2GiB",
            "engine.max_running=512",
            "kv.scheme=exact",
            limits=[(resource.RLIMIT_AS, limit)],
        )
        status = server.wait()
        self.record(f"ulimit -v of {limit // MIB} MiB, KV cache of 2 GiB", "the start: exit 1")
        self.assertEqual(status, 1, server.log())
        self.assertIn("ulimit -v", server.log())

    def test_no_address_space_while_serving(self):
        """ENOMEM while serving: prlimit --as to what is in use.

        What happens is up to gRPC 1.51: it aborts, early or late, or says nothing when it cannot
        create a thread, and the calls that the thread was to serve hang.
        """
        self.needs_long()
        self.needs_plain_build()
        server, books = self.start("engine.max_waiting=40")
        size = server.status_bytes("VmSize")
        hard = resource.prlimit(server.process.pid, resource.RLIMIT_AS)[1]
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (size, hard))
        try:
            try:
                self.overload(server, 64, self.requests(8))
            finally:
                resource.prlimit(server.process.pid, resource.RLIMIT_AS, (hard, hard))
            self.expect_unharmed(server, books)
            self.record("64 calls without a byte to map", "nothing")
            return
        except (AssertionError, grpc.RpcError, ProcessLookupError):
            lost = self.end_of(server)
        self.record("64 calls without a byte to map", f"{lost}; a new one serves")
        again, new_books = self.start()
        self.assertEqual(new_books.text, books.text)

    def end_of(self, server):
        """How a server ends that lost calls: it died, or holds nothing for them and obeys signals."""
        if eventually(lambda: server.process.poll() is not None, 5):
            self.assertNotEqual(server.wait(), 0)
            return f"the process, status {server.wait()}"
        self.expect_nothing_held(server)
        calls = server.metric("open_calls")
        server.kill(signal.SIGTERM)
        signals = "SIGTERM ends"
        try:
            server.wait(40)
        except subprocess.TimeoutExpired:
            signals = "a second SIGTERM ends"
            server.kill(signal.SIGTERM)
            server.wait(10)
        return f"{calls:.0f} calls hang in gRPC, {signals} the process"

    def memory_group(self):
        """A new memory cgroup, as (folder, name of the limit, name of the peak)."""
        for root, limit, peak in (
            (f"{CGROUPS}/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
            (CGROUPS, "memory.max", "memory.peak"),
        ):
            folder = f"{root}/asymserve-faults-{os.getpid()}"
            try:
                os.mkdir(folder)
            except OSError:
                continue
            if os.path.exists(f"{folder}/{limit}"):
                return folder, limit, peak
            os.rmdir(folder)
        self.skipTest("no memory cgroup can be made here: needs root and a writable hierarchy")

    def test_a_cgroup_near_the_plan(self):
        """A cgroup memory limit near the plan."""
        self.needs_long()
        self.needs_plain_build()
        folder, limit_file, peak_file = self.memory_group()
        self.addCleanup(lambda: eventually(lambda: self.remove(folder)))
        limit = 144 * MIB
        with open(f"{folder}/{limit_file}", "w") as file:
            file.write(str(limit))
        join = ("sh", "-c", f'echo $$ >{folder}/cgroup.procs; exec "$@"', "sh")
        # The plan takes all that the group has but the margin, and the cache is written full.
        server, books = self.start(
            "engine.kv_memory_bytes=0",
            "engine.memory_margin_bytes=4MiB",
            "engine.max_running=64",
            "engine.max_waiting=256",
            "kv.scheme=exact",
            wrapper=join,
        )
        budget = sum(Books.rows(server.metrics(), "memory_ledger_bytes").values())
        self.assertLessEqual(budget, limit)
        self.assertGreater(budget, 0.9 * limit)
        requests = self.requests(50)
        alone = self.alone(server, requests)
        for _ in range(4):
            _, answers = self.overload(server, 200, requests)
            self.assertTrue(all(answers), "a request that nobody was answered")
            self.expect_same_texts(answers, alone)
        with open(f"{folder}/{peak_file}") as file:
            peak = int(file.read())
        self.record(
            f"limit {limit // MIB} MiB, budget {budget / MIB:.0f}, 800 calls",
            f"nothing; peak {peak / MIB:.0f} MiB",
        )
        self.assertLess(peak, limit)
        self.expect_unharmed(server, books)
        metrics = server.metrics()
        full = 'asymserve_memory_{}_bytes{{class="kv"}}'
        self.assertGreater(metrics[full.format("resident")], 0.8 * metrics[full.format("planned")])
        server.stop()

    @staticmethod
    def remove(folder):
        try:
            os.rmdir(folder)
            return True
        except OSError:
            return False
