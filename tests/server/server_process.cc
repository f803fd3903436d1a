#include "tests/server/server_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "engine/base/check.h"

namespace asymserve::testing {
namespace {

/// Child's descriptors: {0, 1, 2} become these; -1 keeps the parent's.
struct Redirect {
  int in = -1, out = -1, err = -1;
};

pid_t Spawn(const std::vector<std::string>& arguments, const Redirect& redirect) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = fork();
  ASYMSERVE_CHECK(pid >= 0);
  if (pid != 0) return pid;
  if (redirect.in >= 0) dup2(redirect.in, 0);
  if (redirect.out >= 0) dup2(redirect.out, 1);
  if (redirect.err >= 0) dup2(redirect.err, 2);
  execv(argv[0], argv.data());
  _exit(127);
}

int ToStatus(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

/// Polls for the end of a child.
std::optional<int> WaitFor(pid_t pid, std::chrono::seconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (std::chrono::steady_clock::now() < deadline) {
    int status = 0;
    if (waitpid(pid, &status, WNOHANG) == pid) return ToStatus(status);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return std::nullopt;
}

std::string ReadAll(int descriptor) {
  std::string text;
  char buffer[4096];
  ssize_t count = 0;
  while ((count = read(descriptor, buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(count));
  }
  close(descriptor);
  return text;
}

int CountEntries(const std::string& directory) {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory)) ++count;
  return count;
}

std::string HttpGet(const std::string& address, const std::string& path) {
  const int descriptor = ConnectTo(address);
  if (descriptor < 0) return "";
  const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
  if (write(descriptor, request.data(), request.size()) < 0) return "";
  return ReadAll(descriptor);
}

}  // namespace

int ConnectTo(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str() + colon + 1)));
  inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr);
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(descriptor, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0) {
    return descriptor;
  }
  close(descriptor);
  return -1;
}

Finished RunProgram(const std::vector<std::string>& arguments, const std::string& in,
                    const std::function<bool()>& interrupt_when) {
  int in_pipe[2], out_pipe[2], err_pipe[2];
  ASYMSERVE_CHECK(pipe2(in_pipe, O_CLOEXEC) == 0);
  ASYMSERVE_CHECK(pipe2(out_pipe, O_CLOEXEC) == 0);
  ASYMSERVE_CHECK(pipe2(err_pipe, O_CLOEXEC) == 0);
  const pid_t pid = Spawn(arguments, {in_pipe[0], out_pipe[1], err_pipe[1]});
  close(in_pipe[0]);
  close(out_pipe[1]);
  close(err_pipe[1]);
  Finished finished;
  ASYMSERVE_CHECK(in.size() < 4096);  // fits the pipe: nobody need read yet
  if (!in.empty()) ASYMSERVE_CHECK(write(in_pipe[1], in.data(), in.size()) > 0);
  close(in_pipe[1]);
  std::thread out([&] { finished.out = ReadAll(out_pipe[0]); });
  std::thread err([&] { finished.err = ReadAll(err_pipe[0]); });
  if (interrupt_when) {
    for (int i = 0; i < 6000 && !interrupt_when(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    kill(pid, SIGINT);
  }
  std::optional<int> status = WaitFor(pid, std::chrono::seconds(60));
  if (!status) {
    kill(pid, SIGKILL);
    status = WaitFor(pid, std::chrono::seconds(60));
  }
  out.join();
  err.join();
  finished.status = status.value_or(-1);
  return finished;
}

ServerProcess::ServerProcess(const std::vector<std::string>& arguments, const std::string& binary) {
  std::vector<std::string> all = {binary,  "serve",
                                  "--set", "server.address=127.0.0.1:0",
                                  "--set", "metrics.address=127.0.0.1:0",
                                  "--set", "engine.device=cpu"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  int err_pipe[2];
  ASYMSERVE_CHECK(pipe2(err_pipe, O_CLOEXEC) == 0);
  pid_ = Spawn(all, {.err = err_pipe[1]});
  close(err_pipe[1]);
  reader_ = std::thread([this, descriptor = err_pipe[0]] { ReadLog(descriptor); });
}

ServerProcess::~ServerProcess() {
  if (!status_) {
    kill(pid_, SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
  }
  reader_.join();
}

void ServerProcess::ReadLog(int descriptor) {
  char buffer[4096];
  ssize_t count = 0;
  while ((count = read(descriptor, buffer, sizeof(buffer))) > 0) {
    std::lock_guard lock(mutex_);
    log_.append(buffer, static_cast<size_t>(count));
    changed_.notify_all();
  }
  close(descriptor);
  std::lock_guard lock(mutex_);
  log_ended_ = true;
  changed_.notify_all();
}

bool ServerProcess::WaitForLog(const std::string& text) {
  std::unique_lock lock(mutex_);
  const auto there = [&] {
    const size_t at = log_.find(text);
    return at != std::string::npos && log_.find('\n', at) != std::string::npos;
  };
  changed_.wait_for(lock, std::chrono::seconds(60), [&] { return log_ended_ || there(); });
  return there();
}

std::string ServerProcess::log() {
  std::lock_guard lock(mutex_);
  return log_;
}

std::string ServerProcess::LogValue(const std::string& event, const std::string& key) {
  std::istringstream lines(log());
  std::string line;
  while (std::getline(lines, line)) {
    const size_t at = line.find(' ' + event + ' ');
    const size_t value = at == std::string::npos ? at : line.find(' ' + key + '=', at);
    if (value == std::string::npos) continue;
    const size_t begin = value + key.size() + 2;
    return line.substr(begin, line.find(' ', begin) - begin);
  }
  return "";
}

std::shared_ptr<grpc::Channel> ServerProcess::Channel(
    const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  return grpc::CreateCustomChannel(address(), credentials, arguments);
}

std::string ServerProcess::Scrape() {
  return HttpGet(LogValue("metrics", "address"), "/metrics");
}

std::map<std::string, double> ServerProcess::Metrics() {
  std::istringstream lines(Scrape());
  std::map<std::string, double> samples;
  std::string line;
  while (std::getline(lines, line)) {
    const size_t space = line.rfind(' ');
    if (line.empty() || line[0] == '#' || space == std::string::npos) continue;
    samples[line.substr(0, space)] = std::atof(line.c_str() + space + 1);
  }
  return samples;
}

int ServerProcess::threads() const {
  return CountEntries("/proc/" + std::to_string(pid_) + "/task");
}

int ServerProcess::descriptors() const {
  return CountEntries("/proc/" + std::to_string(pid_) + "/fd");
}

void ServerProcess::Signal(int signal) const {
  kill(pid_, signal);
}

std::optional<int> ServerProcess::WaitForExit(std::chrono::seconds timeout) {
  if (!status_) status_ = WaitFor(pid_, timeout);
  if (status_) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(60), [&] { return log_ended_; });
  }
  return status_;
}

}  // namespace asymserve::testing
