#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/sched/sequence.h"

// Who is admitted next: a pure function of its calls.
//
// 1. Preempted sequences, by age.
// 2. Between tenants: start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996, section 2). A
//    tenant's turn is its virtual start time; the lowest goes first, ties to the lowest id. Each
//    admission moves it by cost / weight, cost = prompt_tokens + max_new_tokens; a tenant that
//    comes back to the queue starts at its own old time or at that of the last turn, what is later.
//    While two tenants both wait, what they were admitted for differs by at most |W_a / weight_a -
//    W_b / weight_b| <= c_a / weight_a + c_b / weight_b, c: their largest costs (theorem 1 there),
//    plus what overtook a head (see Admit). An empty queue forgets all times.
// 3. Within a tenant: the lowest arrival - priority * aging_us. So a higher priority is strict
//    against what arrived less than aging_us a level before it, and a sequence is overtaken only by
//    those of its tenant that arrive within aging_us for each level that they are above it.
//    Priorities do not count between tenants: clients choose them.

namespace asymserve {

class AdmissionQueue {
 public:
  /// How many sequences of each tenant, and in all, ListBehindHead names.
  static constexpr int32_t kListedOfTenant = 4;
  static constexpr int32_t kListed = 32;

  explicit AdmissionQueue(TimeUs aging_us) : aging_us_(aging_us) {}

  bool empty() const { return size() == 0; }
  size_t size() const { return preempted_.size() + never_ran_; }
  /// Waiting sequences that never ran.
  size_t never_ran() const { return never_ran_; }
  bool contains(const Sequence& sequence) const;
  /// Tenants that wait or still have a time.
  size_t tenants() const { return tenants_.size(); }

  /// The sequences belong to the caller and outlive their stay.
  void Insert(Sequence& sequence);
  /// A sequence leaves without being admitted.
  void Erase(Sequence& sequence);
  /// A sequence is admitted for the first time or again, and its tenant charged the first time. One
  /// that overtook a head of its own tenant is charged with that tenant's next turn, so that the
  /// head keeps its place.
  void Admit(Sequence& sequence);

  /// The queue is not empty.
  Sequence& head() const;
  /// Those that never ran and may overtake the head: the first of each tenant, tenants in order of
  /// their turns.
  void ListBehindHead(std::vector<Sequence*>& sequences) const;

  /// Aborts on a broken one; for tests.
  void CheckInvariants() const;

 private:
  /// Virtual time of 1 token at weight 1.
  static constexpr uint64_t kUnit = 1 << 16;
  struct ByAge {
    bool operator()(const Sequence* a, const Sequence* b) const { return a->age < b->age; }
  };
  struct ByKey {
    bool operator()(const std::pair<TimeUs, Sequence*>& a,
                    const std::pair<TimeUs, Sequence*>& b) const {
      if (a.first != b.first) return a.first < b.first;
      return a.second->add_number < b.second->add_number;
    }
  };
  struct Tenant {
    uint64_t start = 0;     // virtual time of its next turn
    uint64_t deferred = 0;  // charged with it
    std::set<std::pair<TimeUs, Sequence*>, ByKey> waiting;
  };

  std::pair<TimeUs, Sequence*> KeyOf(Sequence& sequence) const {
    return {sequence.spec.arrival - sequence.spec.priority * aging_us_, &sequence};
  }
  void Remove(Sequence& sequence, Tenant& tenant);
  /// The tenant's last sequence left: its time is kept while it is ahead.
  void Rest(int32_t id, Tenant& tenant);
  void ForgetPast();

  const TimeUs aging_us_;
  std::set<Sequence*, ByAge> preempted_;
  std::unordered_map<int32_t, Tenant> tenants_;   // never iterated to choose
  std::set<std::pair<uint64_t, int32_t>> turns_;  // start and id of the tenants that wait
  std::set<std::pair<uint64_t, int32_t>> rests_;  // of those that do not, start in the future
  uint64_t virtual_time_ = 0;                     // start of the last turn
  size_t never_ran_ = 0;
};

}  // namespace asymserve
