#include "engine/sched/admission_queue.h"

#include <algorithm>

#include "engine/base/check.h"

namespace asymserve {

bool AdmissionQueue::contains(const Sequence& sequence) const {
  auto& key = const_cast<Sequence&>(sequence);
  if (!sequence.never_ran()) return preempted_.contains(&key);
  const auto tenant = tenants_.find(sequence.spec.tenant);
  return tenant != tenants_.end() && tenant->second.waiting.contains(KeyOf(key));
}

void AdmissionQueue::Insert(Sequence& sequence) {
  if (!sequence.never_ran()) {
    ASYMSERVE_CHECK(preempted_.insert(&sequence).second);
    return;
  }
  const int32_t id = sequence.spec.tenant;
  Tenant& tenant = tenants_[id];
  if (tenant.waiting.empty()) {
    rests_.erase({tenant.start, id});
    tenant.start = std::max(tenant.start, virtual_time_);
    turns_.emplace(tenant.start, id);
  }
  ASYMSERVE_CHECK(tenant.waiting.insert(KeyOf(sequence)).second);
  ++never_ran_;
}

void AdmissionQueue::Remove(Sequence& sequence, Tenant& tenant) {
  ASYMSERVE_CHECK(tenant.waiting.erase(KeyOf(sequence)) == 1);
  --never_ran_;
}

void AdmissionQueue::Erase(Sequence& sequence) {
  if (!sequence.never_ran()) {
    ASYMSERVE_CHECK(preempted_.erase(&sequence) == 1);
    return;
  }
  const int32_t id = sequence.spec.tenant;
  Tenant& tenant = tenants_.at(id);
  Remove(sequence, tenant);
  if (!tenant.waiting.empty()) return;
  turns_.erase({tenant.start, id});
  Rest(id, tenant);
}

void AdmissionQueue::Admit(Sequence& sequence) {
  if (!sequence.never_ran()) {
    ASYMSERVE_CHECK(preempted_.erase(&sequence) == 1);
    return;
  }
  const int32_t id = sequence.spec.tenant;
  Tenant& tenant = tenants_.at(id);
  const bool first_tenant = turns_.begin()->second == id;
  const bool first = tenant.waiting.begin()->second == &sequence;
  Remove(sequence, tenant);
  const uint64_t charge =
      static_cast<uint64_t>(sequence.cost()) * kUnit / static_cast<uint64_t>(sequence.spec.weight);
  if (first_tenant && !first) {
    tenant.deferred += charge;
    return;
  }
  turns_.erase({tenant.start, id});
  if (first_tenant) virtual_time_ = tenant.start;
  tenant.start += charge + tenant.deferred;
  tenant.deferred = 0;
  if (tenant.waiting.empty()) {
    Rest(id, tenant);
  } else {
    turns_.emplace(tenant.start, id);
  }
  ForgetPast();
}

void AdmissionQueue::Rest(int32_t id, Tenant& tenant) {
  tenant.start += tenant.deferred;
  tenant.deferred = 0;
  if (never_ran_ == 0) {
    tenants_.clear();
    rests_.clear();
    virtual_time_ = 0;
  } else if (tenant.start > virtual_time_) {
    rests_.emplace(tenant.start, id);
  } else {
    tenants_.erase(id);
  }
}

void AdmissionQueue::ForgetPast() {
  while (!rests_.empty() && rests_.begin()->first <= virtual_time_) {
    tenants_.erase(rests_.begin()->second);
    rests_.erase(rests_.begin());
  }
}

Sequence& AdmissionQueue::head() const {
  if (!preempted_.empty()) return **preempted_.begin();
  return *tenants_.at(turns_.begin()->second).waiting.begin()->second;
}

void AdmissionQueue::ListBehindHead(std::vector<Sequence*>& sequences) const {
  sequences.clear();
  const Sequence& overtaken = head();
  for (const auto& turn : turns_) {
    int32_t of_tenant = 0;
    for (const auto& waiting : tenants_.at(turn.second).waiting) {
      if (waiting.second == &overtaken) continue;
      if (of_tenant++ == kListedOfTenant) break;
      if (sequences.size() == kListed) return;
      sequences.push_back(waiting.second);
    }
  }
}

void AdmissionQueue::CheckInvariants() const {
  size_t never_ran = 0;
  for (const auto& [id, tenant] : tenants_) {
    never_ran += tenant.waiting.size();
    const bool waits = !tenant.waiting.empty();
    ASYMSERVE_CHECK(turns_.contains({tenant.start, id}) == waits);
    ASYMSERVE_CHECK(rests_.contains({tenant.start, id}) == !waits);
    ASYMSERVE_CHECK(waits ? tenant.start >= virtual_time_ : tenant.start > virtual_time_);
    ASYMSERVE_CHECK(waits || tenant.deferred == 0);
    for (const auto& [key, sequence] : tenant.waiting) {
      ASYMSERVE_CHECK(sequence->never_ran() && sequence->spec.tenant == id);
      ASYMSERVE_CHECK(sequence->state == Sequence::State::kWaiting);
    }
  }
  ASYMSERVE_CHECK(never_ran == never_ran_);
  ASYMSERVE_CHECK(turns_.size() + rests_.size() == tenants_.size());
  ASYMSERVE_CHECK(never_ran_ > 0 || tenants_.empty());
  for (const Sequence* sequence : preempted_) {
    ASYMSERVE_CHECK(!sequence->never_ran() && sequence->state == Sequence::State::kWaiting);
  }
}

}  // namespace asymserve
