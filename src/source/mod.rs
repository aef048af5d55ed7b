//! Where manifests come from: a folder, standard input, or a Git repository that is never checked out.
