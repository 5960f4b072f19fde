/* How the ranks of a communicator find each other. */
#ifndef RINGREEL_EMULATION_NCCL_START_H
#define RINGREEL_EMULATION_NCCL_START_H

#include "tests/emulation/runtime/nccl_internal.h"

namespace emulation::runtime
{

ncclUniqueId make_id();

/* Sets `joining`, which goes on with the start until `state` is no longer ncclInProgress; a
 * communicator of one rank without MPI is ready at once. */
ncclResult_t start(std::shared_ptr<Communicator> comm, const ncclUniqueId &id);

} // namespace emulation::runtime

#endif
