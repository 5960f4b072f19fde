# libcudart.so.13, libnccl.so.2 and libcublasLt.so.13 that run on the CPU, in $(EMULATION_LIB), and their tests. Included
# where the CUDA headers are. What uses them is linked with -L$(EMULATION_LIB) -lcudart -lnccl -lcublasLt, or with
# NVIDIA's, and finds them through LD_LIBRARY_PATH=$(EMULATION_LIB). libcudart holds the emulator as well: kernels
# compiled for the emulator need nothing else.

EMULATION_LIB := $(BUILD)/emulation/lib
RUNTIME       := tests/emulation/runtime
MPI_FLAGS     := -DOMPI_SKIP_MPICXX $(patsubst -I%,-isystem %,$(shell pkg-config --cflags-only-I ompi-c 2>/dev/null))
MPI_LIBS      := $(shell pkg-config --libs ompi-c 2>/dev/null)

runtime_objects = $(patsubst tests/emulation/%.cpp,$(BUILD)/emulation/%.o,$(1))
RUNTIME_TESTS    := $(wildcard $(RUNTIME)/test_*.cpp $(RUNTIME)/ranks_*.cpp)
NCCL_OBJECTS     := $(call runtime_objects,$(wildcard $(RUNTIME)/nccl*.cpp))
CUBLASLT_OBJECTS := $(call runtime_objects,$(wildcard $(RUNTIME)/cublaslt*.cpp))
CUDART_OBJECTS   := $(filter-out $(NCCL_OBJECTS) $(CUBLASLT_OBJECTS), \
                      $(call runtime_objects,$(filter-out $(RUNTIME_TESTS),$(wildcard $(RUNTIME)/*.cpp))))
EMULATED         := $(EMULATION_LIB)/libcudart.so.13 $(EMULATION_LIB)/libnccl.so.2 $(EMULATION_LIB)/libcublasLt.so.13
RUNTIME_PROGRAMS := $(RUNTIME_TESTS:%.cpp=$(BUILD)/%)

$(NCCL_OBJECTS) $(call runtime_objects,$(wildcard $(RUNTIME)/ranks_*.cpp)): EMULATION_FLAGS += $(MPI_FLAGS)

$(EMULATION_LIB)/libcudart.so.13: $(EMULATOR) $(CUDART_OBJECTS) $(RUNTIME)/libcudart.map
$(EMULATION_LIB)/libnccl.so.2: $(NCCL_OBJECTS) $(EMULATION_LIB)/libcudart.so.13 $(RUNTIME)/libnccl.map
$(EMULATION_LIB)/libcublasLt.so.13: $(CUBLASLT_OBJECTS) $(EMULATION_LIB)/libcudart.so.13 $(RUNTIME)/libcublasLt.map
$(EMULATION_LIB)/libnccl.so.2: LIBRARY_LIBS := $(MPI_LIBS)
$(EMULATED):
	@mkdir -p $(@D)
	@echo "link $@"
	$(Q)$(CXX) $(EMULATION_FLAGS) -shared -Wl,-soname,$(@F) -Wl,--version-script,$(filter %.map,$^) -o $@ \
	  $(filter %.o %.so.13,$^) $(LIBRARY_LIBS) -lpthread
	@ln -sf $(@F) $(basename $@)

$(RUNTIME_PROGRAMS): $(BUILD)/tests/%: $(BUILD)/%.o $(EMULATED)
	@mkdir -p $(@D)
	@echo "link $@"
	$(Q)$(CXX) $(EMULATION_FLAGS) -o $@ $< -L$(EMULATION_LIB) -lnccl -lcublasLt -lcudart -Wl,-rpath,$(abspath $(EMULATION_LIB)) \
	  $(MPI_LIBS) -lcmocka

# A plain C program, linked with NVIDIA's libraries where they are: it meets the emulated ones when it starts.
NVIDIA_LIB := $(if $(and $(wildcard $(CUDA_HOME)/lib64/libnccl.so),$(wildcard $(CUDA_HOME)/lib64/libcublasLt.so)),$(CUDA_HOME)/lib64,$(EMULATION_LIB))
$(BUILD)/$(RUNTIME)/plain: $(RUNTIME)/plain.c $(EMULATED)
	@mkdir -p $(@D)
	@echo "link $@"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -isystem $(CUDA_HOME)/include -o $@ $< -L$(NVIDIA_LIB) -lcudart -lnccl -lcublasLt \
	  -Wl,--allow-shlib-undefined $(MPI_LIBS) -lm

# Loaded ahead into ranks, it makes several hosts of one.
HOSTS := $(EMULATION_LIB)/hosts.so
$(HOSTS): tests/emulation/hosts.c
	@mkdir -p $(@D)
	@echo "link $@"
	$(Q)$(CC) $(filter-out -fopenmp,$(CPPFLAGS) $(CFLAGS)) $(MPI_FLAGS) -fPIC -shared -o $@ $< $(MPI_LIBS)

emulation-libraries: $(EMULATED)
check: $(HOSTS)
check: $(RUNTIME_PROGRAMS) $(BUILD)/$(RUNTIME)/plain
.PHONY: emulation-libraries
