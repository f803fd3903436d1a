#include "engine/sched/admission_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <random>
#include <vector>

// Who is admitted next, without pages: the order, its fairness and its bounds.

namespace asymserve {
namespace {

class AdmissionQueueTest : public ::testing::Test {
 protected:
  Sequence& Add(int32_t tenant, int32_t tokens, int32_t weight = 1, int32_t priority = 0,
                TimeUs arrival = 0) {
    SequenceSpec spec;
    spec.prompt_tokens = tokens - 1;
    spec.max_new_tokens = 1;
    spec.tenant = tenant;
    spec.weight = weight;
    spec.priority = priority;
    spec.arrival = arrival;
    Sequence& sequence = sequences_.emplace_back(spec, ++added_);
    queue_.Insert(sequence);
    queue_.CheckInvariants();
    return sequence;
  }
  void Admit(Sequence& sequence) {
    queue_.Admit(sequence);
    sequence.age = ++admitted_;
    queue_.CheckInvariants();
  }
  Sequence& AdmitHead() {
    Sequence& head = queue_.head();
    Admit(head);
    return head;
  }
  /// Tenants of the next `count` admissions.
  std::vector<int32_t> Turns(int count) {
    std::vector<int32_t> tenants;
    for (int i = 0; i < count; ++i) tenants.push_back(AdmitHead().spec.tenant);
    return tenants;
  }

  static constexpr TimeUs kAging = 1000;
  AdmissionQueue queue_{kAging};
  std::deque<Sequence> sequences_;
  uint64_t added_ = 0, admitted_ = 0;
};

TEST_F(AdmissionQueueTest, ATenantOfThreeTimesTheWeightGetsThreeTimesTheTokens) {
  for (int i = 0; i < 40; ++i) {
    Add(1, 10, 1);
    Add(2, 10, 3);
  }
  const std::vector<int32_t> turns = Turns(40);
  EXPECT_EQ(std::count(turns.begin(), turns.end(), 2), 30);
}

TEST_F(AdmissionQueueTest, WhoSendsLargeRequestsGetsFewerOfThem) {
  for (int i = 0; i < 40; ++i) {
    Add(1, 100);
    Add(2, 10);
  }
  const std::vector<int32_t> turns = Turns(33);
  EXPECT_EQ(std::count(turns.begin(), turns.end(), 1), 3);
}

TEST_F(AdmissionQueueTest, ANewTenantGoesBeforeTheBacklogOfAFloodingOne) {
  for (int i = 0; i < 1000; ++i) Add(1, 10);
  Turns(500);
  Add(2, 10);
  EXPECT_EQ(Turns(2), (std::vector<int32_t>{2, 1}));
}

TEST_F(AdmissionQueueTest, ATenantThatWasAwayHasSavedNothing) {
  for (int i = 0; i < 100; ++i) Add(1, 10);
  Add(2, 10);
  Turns(61);
  for (int i = 0; i < 100; ++i) Add(2, 10);
  const std::vector<int32_t> turns = Turns(20);
  EXPECT_EQ(std::count(turns.begin(), turns.end(), 2), 10);
}

TEST_F(AdmissionQueueTest, LeavingTheQueueForAMomentDoesNotPayWhatIsOwed) {
  for (int i = 0; i < 100; ++i) Add(1, 10);
  for (int i = 0; i < 20; ++i) {
    Add(2, 100);  // each comes when the last one was admitted
    while (AdmitHead().spec.tenant != 2) {
    }
    if (queue_.size() < 20) break;
  }
  EXPECT_LE(std::count_if(sequences_.begin(), sequences_.end(),
                          [](const Sequence& s) { return s.age > 0 && s.spec.tenant == 2; }),
            9);
}

TEST_F(AdmissionQueueTest, PrioritiesOrderATenantsOwnRequestsOnly) {
  Add(1, 10, 1, 0);
  Add(1, 10, 1, 5);
  Add(2, 10, 1, -5);
  EXPECT_EQ(AdmitHead().spec.priority, 5);
  EXPECT_EQ(AdmitHead().spec.tenant, 2);
  EXPECT_EQ(AdmitHead().spec.priority, 0);
}

TEST_F(AdmissionQueueTest, AWaitingRequestIsOvertakenOnlyByThoseOfOneAgingPeriodForEachLevel) {
  const Sequence& old = Add(1, 10, 1, 0, 0);
  for (TimeUs arrival = 0; arrival <= 3 * kAging; arrival += 10) Add(1, 10, 1, 2, arrival);
  int32_t overtook = 0;
  while (true) {
    const Sequence& next = AdmitHead();
    if (&next == &old) break;
    EXPECT_LT(next.spec.arrival, 2 * kAging);
    ++overtook;
  }
  EXPECT_EQ(overtook, 2 * kAging / 10);  // strict until then
}

TEST_F(AdmissionQueueTest, PreemptedSequencesGoFirstByAgeAndAreNotChargedAgain) {
  Add(1, 10);
  Add(1, 10);
  Add(2, 10);
  Sequence& first = AdmitHead();
  Sequence& second = AdmitHead();
  ASSERT_EQ(first.spec.tenant, 1);
  ASSERT_EQ(second.spec.tenant, 2);
  queue_.Insert(second);
  queue_.Insert(first);
  EXPECT_EQ(&queue_.head(), &first);
  Admit(first);
  EXPECT_EQ(&queue_.head(), &second);
  Admit(second);
  Add(2, 10);
  EXPECT_EQ(Turns(2), (std::vector<int32_t>{1, 2}));
}

TEST_F(AdmissionQueueTest, OvertakingAHeadOfTheSameTenantLeavesTheHeadItsTurn) {
  Sequence& head = Add(1, 50);
  Sequence& small = Add(1, 10);
  Add(2, 50);
  ASSERT_EQ(&queue_.head(), &head);
  Admit(small);
  EXPECT_EQ(&queue_.head(), &head);
  AdmitHead();
  Add(1, 10);
  for (int i = 0; i < 2; ++i) Add(2, 9);
  // 1 was charged 60, 2 goes on until its start is beyond that.
  EXPECT_EQ(Turns(4), (std::vector<int32_t>{2, 2, 2, 1}));
}

TEST_F(AdmissionQueueTest, ListsTheFirstOfEachTenantBehindTheHead) {
  for (int32_t tenant = 1; tenant <= 20; ++tenant) {
    for (int i = 0; i < 10; ++i) Add(tenant, 10);
  }
  std::vector<Sequence*> behind;
  queue_.ListBehindHead(behind);
  EXPECT_EQ(behind.size(), static_cast<size_t>(AdmissionQueue::kListed));
  std::map<int32_t, int32_t> of_tenant;
  for (const Sequence* sequence : behind) {
    EXPECT_NE(sequence, &queue_.head());
    EXPECT_LE(++of_tenant[sequence->spec.tenant], AdmissionQueue::kListedOfTenant);
  }
  EXPECT_EQ(of_tenant.size(), 8u);
}

TEST_F(AdmissionQueueTest, TenantsWhoseTimeHasPassedAreForgotten) {
  for (int32_t tenant = 1; tenant <= 500; ++tenant) Add(tenant, 10);
  for (int i = 0; i < 10; ++i) Add(0, 10);
  Turns(505);
  EXPECT_EQ(queue_.tenants(), 1u);
  Turns(5);
  EXPECT_EQ(queue_.tenants(), 0u);
}

// Theorem 1 of Goyal, Vin and Cheng: while both wait, what two tenants were admitted for differs by
// no more than one of each one's largest requests, over the weights.
TEST_F(AdmissionQueueTest, TwoTenantsThatWaitAreServedByWeightUpToOneRequestOfEach) {
  constexpr int32_t kTenants = 5;
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    std::mt19937 random(seed);
    std::map<int32_t, int32_t> weight, largest, left;
    for (int32_t tenant = 0; tenant < kTenants; ++tenant) {
      weight[tenant] = static_cast<int32_t>(1 + random() % 9);
      const uint32_t limit = 2 + random() % 200;
      for (int i = 0; i < 60; ++i) {
        const auto tokens = static_cast<int32_t>(2 + random() % limit);
        largest[tenant] = std::max(largest[tenant], tokens);
        Add(tenant, tokens, weight[tenant]);
        ++left[tenant];
      }
    }
    std::map<int32_t, double> served;
    while (true) {
      const Sequence& sequence = AdmitHead();
      const int32_t tenant = sequence.spec.tenant;
      served[tenant] += static_cast<double>(sequence.cost()) / weight[tenant];
      if (--left[tenant] == 0) break;
      for (int32_t a = 0; a < kTenants; ++a) {
        for (int32_t b = 0; b < a; ++b) {
          const double bound = static_cast<double>(largest[a]) / weight[a] +
                               static_cast<double>(largest[b]) / weight[b];
          ASSERT_LE(std::abs(served[a] - served[b]), bound + 0.01) << "seed " << seed;
        }
      }
    }
    while (!queue_.empty()) AdmitHead();
  }
}

}  // namespace
}  // namespace asymserve
