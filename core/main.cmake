# The binary gatehouse-core.
add_executable(gatehouse-core ${CMAKE_CURRENT_LIST_DIR}/main.c)
target_link_libraries(gatehouse-core PRIVATE admin spi dispatch sessions lifecycle psg catalog secrets policy observe store
                      core_rpc_http core_rpc config wire base)
