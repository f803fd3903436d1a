"""A model file that is not what it was."""

import os
import shutil
import tempfile

from harness import FaultTest, Setup


class ModelFileTest(FaultTest):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.path = os.path.join(self.directory.name, "model.gguf")
        shutil.copyfile(Setup.model, self.path)

    def expect_refused(self, *words, **how):
        server = self.launch(model=self.path, **how)
        self.assertEqual(server.wait(), 1, server.log())
        for word in (self.path, *words):
            self.assertIn(word, server.log())

    def test_a_truncated_model(self):
        """Model file truncated before the start."""
        size = os.path.getsize(self.path)
        lengths = (size - 1, size // 2, 4096, 100, 3, 0)
        for length in lengths:
            os.truncate(self.path, length)
            self.expect_refused()
        self.record(f"{len(lengths)} lengths", "the start: exit 1, the file is named")

    def test_an_unreadable_model(self):
        """Model file unreadable, missing, a directory."""
        os.chmod(self.path, 0)
        wrapper = ()
        if os.geteuid() == 0:  # root reads everything as long as it has these capabilities
            wrapper = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        self.expect_refused("Permission denied", wrapper=wrapper)
        os.remove(self.path)
        self.expect_refused("No such file")
        os.mkdir(self.path)
        self.expect_refused()
        self.record("3 starts", "the start: exit 1, the file and the reason are named")

    def test_a_model_that_changes_under_a_server(self):
        """Model file replaced, then cut to nothing, while it is served."""
        server, books = self.start(model=self.path)
        other = self.path + ".new"
        with open(other, "wb") as file:
            file.write(b"another model")
        os.replace(other, self.path)
        self.assertEqual(server.unary(books.PROMPT, books.TOKENS), books.text)
        os.remove(self.path)
        self.expect_unharmed(server, books)
        server.stop()
        shutil.copyfile(Setup.model, self.path)
        server, books = self.start(model=self.path)
        os.truncate(self.path, 0)
        self.record("a running server", "nothing")
        self.expect_unharmed(server, books)
