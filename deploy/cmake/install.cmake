# cmake --install: a folder that runs wherever it is copied, for the container image and for machines
# that do not build. bin/ finds torch/lib/, which finds nvidia/*/lib/, all relative to each other.

set(structattn_programs structattn-server structattn)
set_target_properties(${structattn_programs} PROPERTIES INSTALL_RPATH "$ORIGIN/../torch/lib")
install(TARGETS ${structattn_programs} RUNTIME DESTINATION bin)

get_filename_component(structattn_torch ${STRUCTATTN_TORCH_DIR} REALPATH)
get_filename_component(structattn_wheels ${structattn_torch} DIRECTORY)
install(DIRECTORY ${structattn_torch}/lib/ DESTINATION torch/lib USE_SOURCE_PERMISSIONS)
install(DIRECTORY ${structattn_wheels}/nvidia DESTINATION . USE_SOURCE_PERMISSIONS
        FILES_MATCHING PATTERN "*.so*")
# The licences of what is copied travel with it.
install(DIRECTORY ${structattn_wheels}/ DESTINATION share/licenses
        FILES_MATCHING PATTERN "*.dist-info/*" PATTERN "torch" EXCLUDE PATTERN "nvidia" EXCLUDE)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION share/licenses/structattn)
