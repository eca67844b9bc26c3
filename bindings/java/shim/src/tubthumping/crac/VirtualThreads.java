package tubthumping.crac;

import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/**
 * The virtual threads that live, which belong to no group.
 *
 * <p>In: the JDK's books of who has started which thread. Out: those threads.
 *
 * <p>Not here: those that no executor has started where {@code -Djdk.trackAllThreads=false} says that the JDK is to
 * keep no books of them.
 *
 * <p>JVM(since 21): {@code jdk.internal.vm.ThreadContainers.root} and, of each container, {@code threads} and {@code
 * children}; same on 25.
 */
final class VirtualThreads {
    private final Class<?> type = Internals.type("java.lang.VirtualThread");
    private MethodHandle root;
    private MethodHandle threadsOf;
    private MethodHandle childrenOf;

    VirtualThreads() throws ReflectiveOperationException {
        Class<?> containers = Internals.type("jdk.internal.vm.ThreadContainers");
        Class<?> container = Internals.type("jdk.internal.vm.ThreadContainer");
        if (type != null && containers != null && container != null) {
            root = Internals.handle(containers, "root");
            threadsOf = Internals.handle(container, "threads");
            childrenOf = Internals.handle(container, "children");
        }
    }

    List<Thread> all() throws Exception {
        List<Thread> found = new ArrayList<>();
        // Where nobody has made one a copy need not look for them.
        if (root != null && Internals.isInUse(type)) {
            Object top = Internals.call(root);
            addOf(top, found);
            addBelow(top, found);
        }
        return found;
    }

    private void addBelow(Object container, List<Thread> found) throws Exception {
        for (Object child : list(childrenOf, container)) {
            // Where there is no thread nobody has started more of them.
            if (addOf(child, found)) {
                addBelow(child, found);
            }
        }
    }

    private boolean addOf(Object container, List<Thread> found) throws Exception {
        List<?> threads = list(threadsOf, container);
        for (Object thread : threads) {
            if (type.isInstance(thread)) {
                found.add((Thread) thread);
            }
        }
        return !threads.isEmpty();
    }

    private static List<?> list(MethodHandle what, Object container) throws Exception {
        return ((Stream<?>) Internals.call(what, container)).toList();
    }
}
