// Runs one request on a SavedModel in TensorFlow's C runtime, without Python:  rank MODEL_DIR REQUEST_FILE [REPEATS]
//
// Standard output: the values of the output on one line, then the milliseconds of each repeat, one a line. The first run, which
// makes the values, warms up and is not timed. A failure is "rank: " and a reason on standard error, after TensorFlow's own notes, and
// exit code 1.
// request_file.py writes the request and describes its format.

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

enum { MAX_INPUTS = 64, MAX_DIMS = 8 };

_Noreturn static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("rank: ", stderr);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

static void check(const TF_Status *status, const char *step) {
  if (TF_GetCode(status) != TF_OK) fail("%s: %s", step, TF_Message(status));
}

static void read_exactly(void *target, size_t size, FILE *file) {
  if (fread(target, 1, size, file) != size) fail("the request file must be whole");
}

static int64_t read_number(FILE *file) {
  int64_t number;
  read_exactly(&number, sizeof number, file);
  if (number < 0) fail("lengths and sizes must not be negative");
  return number;
}

static char *read_bytes(FILE *file, size_t *size) {  // ends with a zero that is not counted
  *size = (size_t)read_number(file);
  char *bytes = malloc(*size + 1);
  if (bytes == NULL) fail("out of memory");
  read_exactly(bytes, *size, file);
  bytes[*size] = '\0';
  return bytes;
}

static TF_Output read_tensor_name(FILE *file, TF_Graph *graph) {
  size_t size;
  char *name = read_bytes(file, &size);
  TF_Output tensor = {TF_GraphOperationByName(graph, name), (int)read_number(file)};
  if (tensor.oper == NULL) fail("the graph has no operation %s", name);
  free(name);
  return tensor;
}

static TF_Tensor *read_tensor(FILE *file) {
  const TF_DataType type = (TF_DataType)read_number(file);
  const int num_dims = (int)read_number(file);
  if (num_dims > MAX_DIMS) fail("at most %d dimensions", MAX_DIMS);
  int64_t dims[MAX_DIMS], count = 1;
  for (int i = 0; i < num_dims; ++i) count *= dims[i] = read_number(file);
  const size_t size_of_one = type == TF_STRING ? sizeof(TF_TString) : TF_DataTypeSize(type);  // which is 0 for strings
  TF_Tensor *tensor = TF_AllocateTensor(type, dims, num_dims, (size_t)count * size_of_one);
  if (type != TF_STRING) {
    read_exactly(TF_TensorData(tensor), TF_TensorByteSize(tensor), file);
    return tensor;
  }
  TF_TString *strings = TF_TensorData(tensor);
  for (int64_t i = 0; i < count; ++i) {
    size_t size;
    char *bytes = read_bytes(file, &size);
    TF_StringInit(&strings[i]);
    TF_StringCopy(&strings[i], bytes, size);
    free(bytes);
  }
  return tensor;
}

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void print_floats(const TF_Tensor *tensor) {
  if (TF_TensorType(tensor) != TF_FLOAT) fail("the output must be float32");
  const float *values = TF_TensorData(tensor);
  const int64_t count = TF_TensorElementCount(tensor);
  for (int64_t i = 0; i < count; ++i) printf("%s%.9g", i > 0 ? " " : "", values[i]);
  printf("\n");
}

int main(int argc, char **argv) {
  if (argc < 3) fail("usage: rank MODEL_DIR REQUEST_FILE [REPEATS]");
  const int repeats = argc > 3 ? atoi(argv[3]) : 0;
  const char *const tags[] = {"serve"};
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status, "loading the model");

  FILE *file = fopen(argv[2], "rb");
  if (file == NULL) fail("cannot open the request file %s", argv[2]);
  TF_Output names[MAX_INPUTS];
  TF_Tensor *inputs[MAX_INPUTS], *answer = NULL;
  const int num_inputs = (int)read_number(file);
  if (num_inputs > MAX_INPUTS) fail("at most %d inputs", MAX_INPUTS);
  for (int i = 0; i < num_inputs; ++i) {
    names[i] = read_tensor_name(file, graph);
    inputs[i] = read_tensor(file);
  }
  const TF_Output output = read_tensor_name(file, graph);
  fclose(file);

  for (int run = 0; run <= repeats; ++run) {
    const double begin = now_ms();
    TF_SessionRun(session, NULL, names, inputs, num_inputs, &output, &answer, 1, NULL, 0, NULL, status);
    const double end = now_ms();
    check(status, "running the model");
    if (run == 0) print_floats(answer);
    if (run > 0) printf("%.4f\n", end - begin);
    TF_DeleteTensor(answer);
  }

  for (int i = 0; i < num_inputs; ++i) TF_DeleteTensor(inputs[i]);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
