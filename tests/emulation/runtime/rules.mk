# libcudart.so.13, libnccl.so.2 and libcublasLt.so.13 that run on the CPU, in $(BUILD)/emulation/lib, and their tests.
# Included where the CUDA headers are. Libraries and programs that use them: -L$(EMULATION_LIB) -lcudart -lnccl
# -lcublasLt, and LD_LIBRARY_PATH=$(EMULATION_LIB) when they run. libcudart holds the emulator's core as well.

EMULATION_LIB := $(BUILD)/emulation/lib
RUNTIME_DIR   := tests/emulation/runtime
RUNTIME_FLAGS := -fPIC -isystem $(CUDA_HOME)/include -DOMPI_SKIP_MPICXX -Wno-psabi

NCCL_PARTS     := $(wildcard $(RUNTIME_DIR)/nccl*.cpp)
CUBLASLT_PARTS := $(wildcard $(RUNTIME_DIR)/cublaslt*.cpp)
RUNTIME_TESTS  := $(wildcard $(RUNTIME_DIR)/test_*.cpp)
CUDART_PARTS   := $(wildcard tests/emulation/*.cpp) \
                  $(filter-out $(NCCL_PARTS) $(CUBLASLT_PARTS) $(RUNTIME_TESTS) $(RUNTIME_DIR)/ranks_%.cpp, \
                    $(wildcard $(RUNTIME_DIR)/*.cpp))

libraries := $(EMULATION_LIB)/libcudart.so.13 $(EMULATION_LIB)/libnccl.so.2 $(EMULATION_LIB)/libcublasLt.so.13

# The core switches stacks by hand and keeps to its own flags; see tests/emulation/README.md.
$(BUILD)/emulation/pic/%.o: %.cpp
	@mkdir -p $(@D)
	@echo "c++  $< (emulation)"
	$(Q)$(CXX) $(CPPFLAGS) -Itests/emulation $(CXXFLAGS) $(RUNTIME_FLAGS) -c -o $@ $<

# name, soname, version script, parts, what it needs
define emulated_library
$(EMULATION_LIB)/$(1).so.$(2): $(3:%.cpp=$(BUILD)/emulation/pic/%.o) $(RUNTIME_DIR)/$(1).map $(if $(filter libcudart,$(1)),,$(EMULATION_LIB)/libcudart.so.13)
	@mkdir -p $$(@D)
	@echo "link $$@"
	$$(Q)$$(CXX) $$(CXXFLAGS) -shared -Wl,-soname,$(1).so.$(2) -Wl,--version-script,$(RUNTIME_DIR)/$(1).map \
	  -o $$@ $$(filter %.o %.so.13,$$^) $(4)
	@ln -sf $(1).so.$(2) $(EMULATION_LIB)/$(1).so
endef
$(eval $(call emulated_library,libcudart,13,$(CUDART_PARTS),-lpthread))
$(eval $(call emulated_library,libnccl,2,$(NCCL_PARTS),$(shell pkg-config --libs ompi-c)))
$(eval $(call emulated_library,libcublasLt,13,$(CUBLASLT_PARTS),))

emulation-libraries: $(libraries)

# ---- tests ---------------------------------------------------------------------------------------------------------

runtime_programs := $(patsubst %.cpp,$(BUILD)/%,$(RUNTIME_TESTS) $(wildcard $(RUNTIME_DIR)/ranks_*.cpp))

$(runtime_programs): $(BUILD)/%: $(BUILD)/emulation/pic/%.o $(libraries)
	@mkdir -p $(@D)
	@echo "link $@"
	$(Q)$(CXX) $(CXXFLAGS) -o $@ $< -L$(EMULATION_LIB) -lnccl -lcublasLt -lcudart -Wl,-rpath,$(abspath $(EMULATION_LIB)) \
	  $(shell pkg-config --libs ompi-c) -lcmocka

# A plain C program, linked with NVIDIA's libraries where they are: it meets the emulated ones when it starts.
NVIDIA_LIB := $(if $(wildcard $(CUDA_HOME)/lib64/libcublasLt.so $(CUDA_HOME)/lib64/libnccl.so),$(CUDA_HOME)/lib64,$(EMULATION_LIB))
$(BUILD)/$(RUNTIME_DIR)/plain: $(RUNTIME_DIR)/plain.c $(libraries)
	@mkdir -p $(@D)
	@echo "link $@"
	$(Q)$(CC) -std=gnu11 -I. $(WARN) -g $(SAN) -isystem $(CUDA_HOME)/include $(shell pkg-config --cflags ompi-c) -o $@ $< \
	  -L$(NVIDIA_LIB) -lcudart -lnccl -lcublasLt -Wl,--allow-shlib-undefined $(shell pkg-config --libs ompi-c) -lm

check: $(runtime_programs) $(BUILD)/$(RUNTIME_DIR)/plain
.PHONY: emulation-libraries
