// The few functions of Python's stable ABI that the warm interpreter's library calls
// (launch/python_zygote.cc).
//
// They are the executable's, found when it loads the library; so building needs no Python, and the library
// works with whatever /usr/bin/python3 is (3.7 or later). Returned objects are the caller's unless it says
// otherwise; nullptr: an exception is set.
#pragma once

#include <cstddef>

extern "C" {
struct PyObject;
PyObject* PyImport_AddModule(const char* name);  // borrowed
PyObject* PyObject_GetAttrString(PyObject* object, const char* name);
PyObject* PyBytes_FromStringAndSize(const char* bytes, std::ptrdiff_t size);
PyObject* PyList_New(std::ptrdiff_t size);
int PyList_Append(PyObject* list, PyObject* item);                // takes a reference of its own
PyObject* PyObject_CallFunctionObjArgs(PyObject* function, ...);  // arguments, then nullptr
long PyLong_AsLong(PyObject* number);
void Py_DecRef(PyObject* object);
void PyErr_Print();
void PyOS_AfterFork_Child();
}
